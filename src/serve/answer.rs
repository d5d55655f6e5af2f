//! The requests, answers and errors of serving.

use std::sync::Arc;

use crate::{checkpoint::CheckpointError, types::CheckpointId};
use kith_mcmc::Side;
use kith_nn::NnError;
use kith_pixels::PixelError;

/// Which model a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The live checkpoint.
    Live,
    /// That checkpoint.
    Pinned(CheckpointId),
}

/// How soon the images of a request have their turn among those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits: before bulk.
    Interactive,
    /// What is left over, but at least every fourth place.
    Bulk,
}

/// Most images of a request that is interactive by itself.
const SMALL_REQUEST: usize = 4;

impl Priority {
    /// The class of a request: what its caller asks for, or else by its number of images.
    pub(super) fn of(asked: Option<Self>, images: usize) -> Self {
        let by_size = if images <= SMALL_REQUEST {
            Self::Interactive
        } else {
            Self::Bulk
        };
        asked.unwrap_or(by_size)
    }
}

/// What callers may know of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelInfo {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Values in an embedding.
    pub dim: usize,
    /// Values in the hidden features.
    pub hidden: usize,
    /// Side of the input in pixels.
    pub side: usize,
    /// Encoders: 1 for both sides of pairs, or 2, one for each.
    pub towers: usize,
    /// Largest magnitude of a value that 8-bit embeddings express.
    pub range: f32,
}

/// All vectors of one request, from one checkpoint.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// Which model made them.
    pub model: ModelInfo,
    /// The side whose encoder made them: the anchor's, where both sides share one.
    pub side: Side,
    /// The vectors of each image, in order.
    pub rows: Vec<Arc<Row>>,
}

/// The vectors of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Unit length, `dim` values.
    pub embedding: Vec<f32>,
    /// `hidden` values.
    pub hidden: Vec<f32>,
}

impl Row {
    /// The row, unless it has a value that is not finite: no caller can use that.
    pub(super) fn finite(self, model: &ModelInfo) -> Result<Self, ServeError> {
        let mut values = self.embedding.iter().chain(&self.hidden);
        if values.all(|value| value.is_finite()) {
            return Ok(self);
        }
        tracing::error!(checkpoint = %model.id, "a vector is not finite");
        Err(ServeError::NotFinite {
            id: model.id,
            chosen: false,
        })
    }
}

impl ServeError {
    /// An error that several callers get, for one of them.
    pub(super) fn of_one_of_many(error: Arc<Self>) -> Self {
        match Arc::try_unwrap(error) {
            Ok(only) => only,
            Err(shared) => match &*shared {
                Self::Pixels { index, source } => Self::Pixels {
                    index: *index,
                    source: source.clone(),
                },
                Self::NotFinite { id, chosen } => Self::NotFinite {
                    id: *id,
                    chosen: *chosen,
                },
                Self::Stopping => Self::Stopping,
                // What comes from the encoder, and what no image can bring.
                other => Self::Encode(other.to_string()),
            },
        }
    }
}

/// Why a request could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The image at `index` is not acceptable.
    #[error("{source}")]
    Pixels {
        /// Position in the request.
        index: usize,
        /// Why.
        source: PixelError,
    },
    /// More images in one request than the queue ever holds: waiting would not help.
    #[error(
        "{images} images are more than the encoder's queue holds: send at most {limit} at once"
    )]
    TooMany {
        /// Images of the request.
        images: usize,
        /// What the queue holds.
        limit: usize,
    },
    /// The queue is full.
    #[error("the encoder's queue is full: retry in a moment, with fewer images at once")]
    Overloaded,
    /// The images before this small request would take too long.
    #[error("the images that wait would take longer than serving.max_wait_ms: retry in a moment")]
    LongWait,
    /// No checkpoint serves yet.
    #[error("no checkpoint is loaded yet")]
    NotReady,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The checkpoint asked for is not there or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The encoder could not be built.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The checkpoint's encoder gives vectors that are not finite.
    #[error("checkpoint {id} gives vectors that are not finite: use another")]
    NotFinite {
        /// The checkpoint.
        id: CheckpointId,
        /// Whether the caller chose it by name.
        chosen: bool,
    },
    /// The encoder failed on the batch that the request was part of.
    #[error("the encoder failed: {0}")]
    Encode(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_images_are_interactive_unless_the_caller_says_otherwise() {
        use Priority::{Bulk, Interactive};
        for (asked, images, class) in [
            (None, 1, Interactive),
            (None, 4, Interactive),
            (None, 5, Bulk),
            (Some(Bulk), 1, Bulk),
            (Some(Interactive), 256, Interactive),
        ] {
            assert_eq!(Priority::of(asked, images), class, "{asked:?} {images}");
        }
    }
}

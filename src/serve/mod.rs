//! The live encoder and the batcher: image bytes in, vectors out.
//! Must never know: training. It follows the database row that says which checkpoint is live. Only room that uses `arc-swap`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{CheckpointError, Checkpoints},
    db::Db,
    nn::{Device, NnError},
    pixels::{Limits, PixelError},
    types::CheckpointId,
};

/// Settings of serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Threads of the encoder's pool; 0: one for each core.
    pub threads: usize,
    /// Threads that decode images; 0: one for each core.
    pub decode_threads: usize,
    /// Images that may wait for the encoder; beyond it requests are refused (429).
    pub queue_images: usize,
    /// Most images encoded in one pass.
    pub max_batch: usize,
    /// Pinned checkpoints (`kith@ID`) kept in memory besides the live one.
    pub pinned: usize,
    /// How often the live row is looked at, in milliseconds.
    pub follow_ms: u64,
}

/// Which model a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The live checkpoint.
    Live,
    /// That checkpoint.
    Pinned(CheckpointId),
}

/// What a model looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// All vectors of one request, from one checkpoint.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// Which model made them.
    pub model: ModelInfo,
    /// A row for each image, in order: (embedding, hidden).
    pub rows: Vec<Row>,
}

/// The vectors of one image.
#[derive(Clone, Debug)]
pub struct Row {
    /// Unit length, `dim` values.
    pub embedding: Vec<f32>,
    /// `hidden` values.
    pub hidden: Vec<f32>,
}

/// What can go wrong.
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
    /// The queue is full.
    #[error("the encoder's queue is full: retry in a moment, with fewer images at once")]
    Overloaded,
    /// No checkpoint serves yet.
    #[error("no checkpoint is loaded yet")]
    NotReady,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The checkpoint asked for is not there or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

/// Handle to the serving side; cheap to clone.
#[derive(Clone)]
pub struct Serving {
    shared: Arc<()>,
}

impl Serving {
    /// Loads the live checkpoint, starts the encoder's thread and the follower.
    pub async fn start(
        config: ServeConfig,
        limits: Limits,
        device: Device,
        db: Db,
        checkpoints: Checkpoints,
    ) -> Result<Self, ServeError> {
        let _ = (device, db, checkpoints);
        todo!("{config:?} {limits:?}")
    }
    /// The live model, if one is loaded.
    pub fn live(&self) -> Option<ModelInfo> {
        let _ = &self.shared;
        todo!()
    }
    /// A model by name, loading a pinned one if needed.
    pub async fn model(&self, which: Which) -> Result<ModelInfo, ServeError> {
        todo!("{which:?}")
    }
    /// Embeds images: decode on the bounded pool, then the batcher. Dropping the future drops the images from the queue.
    pub async fn embed(&self, which: Which, images: Vec<Bytes>) -> Result<Embedded, ServeError> {
        todo!("{which:?} {}", images.len())
    }
    /// Looks at the live row now (after a promotion), and returns once it serves.
    pub async fn follow_now(&self) -> Result<(), ServeError> {
        todo!()
    }
    /// Answers what was accepted, then ends the threads.
    pub async fn stop(&self) {
        todo!()
    }
}

//! What can go wrong in a training step.

use kith_nn::NnError;

/// Stored images cannot be read for now: a store fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Why a training step failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A value is infinite or not a number. Nothing was updated.
    #[error("the {what} of step {step} is not finite")]
    NonFinite {
        /// Name of the value.
        what: &'static str,
        /// The step.
        step: u64,
    },
    /// Stored images cannot be read for now. Nothing was updated.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The `exact` objective would encode more images than it may.
    #[error(
        "the exact objective encodes all {images} images in each step, learning.exact_images allows {max}: raise it, or set \
         learning.objective to emc2, which estimates the same loss from small batches"
    )]
    TooManyImages {
        /// Number of images in the trained pairs.
        images: usize,
        /// [`LearnConfig::exact_images`](crate::LearnConfig::exact_images).
        max: usize,
    },
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

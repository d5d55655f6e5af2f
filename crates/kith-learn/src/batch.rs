//! The pairs of one training step.

use kith_mcmc::{PairKey, Recency};

/// The pairs of one step, with their augmented images.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Number of the step, from 0. All randomness of the step derives from it and the run's seed.
    pub step: u64,
    /// The pairs, each at most once.
    pub pairs: Vec<PairKey>,
    /// How much more often recent pairs were drawn when the batch was.
    pub recency: Recency,
    /// Pixels across each image, and each view of an image outside the batch. It may be another than the encoder serves.
    pub side: usize,
    /// `[2 · pairs, side, side, 3]`: each pair's anchor, then its positive.
    pub pixels: Vec<f32>,
}

/// A step number as the chain table stores it.
pub(super) fn step_stamp(step: u64) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

//! The stores that training is given.

use crate::{
    blobs::Blobs, checkpoint::Checkpoints, db::Db, foreground::Foreground, telemetry::Metrics,
};

/// What training reads from and writes to, and what it gives way to.
pub struct Stores {
    /// Images and the files of checkpoints.
    pub blobs: Blobs,
    /// Pairs, and the rows of checkpoints.
    pub db: Db,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The requests that it pauses for.
    pub foreground: Foreground,
    /// Where the effect of posted pairs is counted.
    pub metrics: Metrics,
}

//! The work that the loop hands to the snapshot thread.

use crate::checkpoint::{Label, Snapshot};

/// A checkpoint to write, or to judge if it is written already.
pub(super) struct SnapshotJob {
    pub(super) label: Label,
    pub(super) step: u64,
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// See [`crate::checkpoint::Manifest::range`].
    pub(super) range: Option<f32>,
    /// The run that it comes from.
    pub(super) run_id: u64,
    /// The step at which that run began.
    pub(super) run_began_at: u64,
}

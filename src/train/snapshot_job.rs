//! The work that the loop hands to the snapshot thread.

use crate::checkpoint::{Label, Snapshot};

/// A checkpoint to write, or to judge if it is written already.
pub(super) struct SnapshotJob {
    pub(super) label: Label,
    pub(super) step: u64,
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// Whether a complete checkpoint has the same state, only without a fitted projection: this one is of use only with it.
    pub(super) only_to_fit: bool,
    /// Whether it is judged now, and not fitted and judged by a start with training on.
    pub(super) is_judged: bool,
    /// Whether the embeddings of the last steps look collapsed.
    pub(super) is_suspected: bool,
    /// Whether it is what a roll-back went back to, without a step.
    pub(super) is_restored: bool,
    /// The last error when it was taken.
    pub(super) last_error: Option<String>,
    /// Number of trained pairs at the snapshot before this one.
    pub(super) pairs_before: usize,
    /// See [`crate::checkpoint::Manifest::range`].
    pub(super) range: Option<f32>,
    /// The run that it comes from.
    pub(super) run_id: u64,
    /// The step at which that run began.
    pub(super) run_began_at: u64,
}

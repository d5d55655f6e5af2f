//! How a study reports its progress.

/// Receives the progress of a study, in units of work (steps, visits or chains).
pub trait Progress: Sync {
    /// The study begins: it has `total` units, of which earlier runs have done `done`.
    fn begin(&self, total: u64, done: u64);
    /// The run `name` begins.
    fn begin_run(&self, name: &str);
    /// `units` more units are done.
    fn advance(&self, units: u64);
    /// All runs are done.
    fn finish(&self);
}

/// A [`Progress`] that shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _total: u64, _done: u64) {}
    fn begin_run(&self, _name: &str) {}
    fn advance(&self, _units: u64) {}
    fn finish(&self) {}
}

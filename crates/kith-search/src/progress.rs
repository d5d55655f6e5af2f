//! How far a graph is built.

use indicatif::ProgressBar;

/// Told by the thread that builds, read by any other; cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Default for Progress {
    fn default() -> Self {
        // instant-distance tells it by such a bar, which is never drawn.
        Self(ProgressBar::hidden())
    }
}

impl Progress {
    /// Share of the vectors that are in the graph, 0 to 1, known to a thousand vectors.
    pub fn share(&self) -> f64 {
        let total = self.0.length().unwrap_or(0).max(1);
        (self.0.position() as f64 / total as f64).min(1.0)
    }

    pub(crate) fn bar(&self) -> ProgressBar {
        self.0.clone()
    }
}

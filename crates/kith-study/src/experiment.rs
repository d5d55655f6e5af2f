//! The interface of a study: its runs, how one is measured, what is plotted and what is claimed.

use serde_json::Value;

use super::{Claim, Points, Run, StudyError, plot::Chart, run_recorder::RunRecorder};

/// A study.
pub(super) trait Experiment {
    /// The settings. Two studies with equal settings measure the same.
    fn settings(&self) -> Value;

    /// The names of the compared series, in plotting order.
    fn series(&self) -> Vec<String>;

    /// The positions at which a run of `series` is measured, in units of work, ascending. The last is the run's end.
    fn positions(&self, series: &str) -> Vec<u64>;

    /// Measures one run from its saved state, or from the start, to its end.
    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError>;

    /// The plots.
    fn charts(&self) -> Vec<Chart>;

    /// The claims, judged from the measured points alone.
    fn judge(&self, points: &Points) -> Vec<Claim>;

    /// Why the claims are not judged: too little was measured. `None` if they are.
    fn unjudged_reason(&self) -> Option<String> {
        None
    }
}

//! Records the points, the state and the progress of one run.

use std::collections::BTreeMap;

use super::{Progress, Run, StudyError, results_log::ResultsLog, run_state::RunState};

/// Records one run.
pub(super) struct RunRecorder<'a> {
    run: &'a Run,
    log: &'a mut ResultsLog,
    progress: &'a dyn Progress,
}

impl<'a> RunRecorder<'a> {
    pub(super) fn new(run: &'a Run, log: &'a mut ResultsLog, progress: &'a dyn Progress) -> Self {
        Self { run, log, progress }
    }

    /// Records the values measured at position `at`. They are on disk when this returns.
    pub(super) fn record(&mut self, at: u64, values: &[(&str, f64)]) -> Result<(), StudyError> {
        let values: BTreeMap<String, f64> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        self.log.append(self.run, at, values)
    }

    /// The last saved state of this run, if there is one.
    pub(super) fn saved_state(&self) -> Result<Option<RunState>, StudyError> {
        self.log.saved_state(self.run)
    }

    /// Saves the state that the run continues from after an interruption.
    pub(super) fn save_state(&self, state: &RunState) -> Result<(), StudyError> {
        self.log.save_state(self.run, state)
    }

    /// Reports `units` more units of work as done.
    pub(super) fn advance(&self, units: u64) {
        self.progress.advance(units);
    }
}

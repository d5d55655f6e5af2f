//! The seam between a study and what conducts it: which runs there are, how one is measured, what is drawn and what is claimed.
//! Must never know: any study's inside, files.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Claim, Points, Run, StudyError,
    notebook::{Notebook, Page},
    plot::Chart,
};

/// Hears how far a study is.
pub trait Progress: Sync {
    /// `total` units of work lie ahead, `done` of them were done earlier.
    fn begin(&self, total: u64, done: u64);
    /// What is done next.
    fn turn_to(&self, what: &str);
    /// Some more units are done.
    fn advance(&self, units: u64);
    /// Nothing more comes.
    fn finish(&self);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _total: u64, _done: u64) {}
    fn turn_to(&self, _what: &str) {}
    fn advance(&self, _units: u64) {}
    fn finish(&self) {}
}

/// Fewest steps of training whose end says something about an objective.
const MIN_STEPS: u64 = 1_000;

/// Why `steps` steps are too few to judge a trained objective by.
pub(super) fn too_few(steps: u64) -> Option<String> {
    (steps < MIN_STEPS).then(|| {
        format!(
            "{steps} steps of training are too few to judge these claims, which need {MIN_STEPS} at least: take --scale laptop"
        )
    })
}

/// A study.
pub(super) trait Experiment {
    /// Its settings: two studies with equal settings measure the same.
    fn settings(&self) -> Value;

    /// What is compared, in the order in which it is drawn.
    fn series(&self) -> Vec<String>;

    /// The places of a run of `series` that are measured, ascending, in units of work: the last is the run's end.
    fn places(&self, series: &str) -> Vec<u64>;

    /// Measures one run from where its desk stands to its end.
    fn measure(&self, run: &Run, desk: &mut Desk<'_>) -> Result<(), StudyError>;

    /// What is drawn.
    fn charts(&self) -> Vec<Chart>;

    /// What is claimed, judged by what was measured alone.
    fn judge(&self, points: &Points) -> Vec<Claim>;

    /// Why what was measured is too little to judge the claims by; `None`: it is enough.
    fn too_little(&self) -> Option<String> {
        None
    }
}

/// Where one run is measured: takes its points, keeps its state, and tells of its progress.
pub(super) struct Desk<'a> {
    run: &'a Run,
    notebook: &'a mut Notebook,
    progress: &'a dyn Progress,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        run: &'a Run,
        notebook: &'a mut Notebook,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            run,
            notebook,
            progress,
        }
    }

    /// Writes a point down; on disk when this returns.
    pub(super) fn note(&mut self, at: u64, values: &[(&str, f64)]) -> Result<(), StudyError> {
        let values: BTreeMap<String, f64> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        self.notebook.note(self.run, at, values)
    }

    /// The state that was kept last, with the place it belongs to.
    pub(super) fn kept(&self) -> Result<Option<(u64, Page)>, StudyError> {
        self.notebook.kept(self.run)
    }

    /// Keeps what the run needs to go on from the place `at`.
    pub(super) fn keep(&self, at: u64, page: &Page) -> Result<(), StudyError> {
        self.notebook.keep(self.run, at, page)
    }

    pub(super) fn advance(&self, units: u64) {
        self.progress.advance(units);
    }
}

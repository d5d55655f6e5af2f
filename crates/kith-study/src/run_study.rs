//! Conducts a study: its runs one after the other, what is known already left out, then the report. Must never know: any study's inside.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    Claim, Progress, Run, Scale, StudyError, StudyKind,
    cost::Cost,
    experiment::{Desk, Experiment},
    figure1::Figure1,
    figure2::Figure2,
    gradient::Gradient,
    notebook::Notebook,
    report,
    stationarity::Stationarity,
};
use kith_nn::Device;
use kith_pixels::Limits;

/// What is to be studied.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which study.
    pub kind: StudyKind,
    /// At which scale.
    pub scale: Scale,
    /// The images; not looked at by `stationarity` and `cost`.
    pub images: Option<PathBuf>,
    /// Where points, plots and the summary go.
    pub out: PathBuf,
    /// One run of each series for each.
    pub seeds: Vec<u64>,
    /// Overrides of the preset, `key=value`.
    pub sets: Vec<String>,
    /// Where the encoder runs.
    pub device: Device,
    /// What an image may cost.
    pub limits: Limits,
}

impl Order {
    /// The images' folder, for a study that looks at images.
    pub(super) fn images(&self) -> Result<&Path, StudyError> {
        let name = self.kind.name();
        self.images.as_deref().ok_or_else(|| {
            StudyError::config(format!(
                "{name} needs images: name their folder with --images"
            ))
        })
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The claims with their figures.
    pub claims: Vec<Claim>,
    /// The summary, in Markdown.
    pub summary: PathBuf,
    /// Why the claims are not judged: too little was measured.
    pub unjudged: Option<String>,
}

impl Outcome {
    /// Whether all claims hold, judged or not.
    pub fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

/// Measures what is not known yet, and writes `points.csv`, `points.json`, the plots and `summary.md` into the output folder. Computes in
/// rayon's current pool.
///
/// It may be stopped at any time: an order with the same settings and folder goes on where it was, and may name more seeds.
pub fn conduct(order: &Order, progress: &dyn Progress) -> Result<Outcome, StudyError> {
    if order.seeds.is_empty() {
        return Err(StudyError::config("name at least one seed"));
    }
    let experiment = experiment(order)?;
    let head = json!({"study": order.kind.name(), "settings": experiment.settings()});
    let mut notebook = Notebook::open(&order.out, &head)?;
    let runs: Vec<Run> = order
        .seeds
        .iter()
        .flat_map(|seed| {
            let series = experiment.series().into_iter();
            series.map(|series| Run {
                seed: *seed,
                series,
            })
        })
        .collect();
    measure(&*experiment, &runs, &mut notebook, progress)?;
    progress.finish();
    notebook.finish()?;
    let claims = experiment.judge(notebook.points());
    let summary = report::write(order, &*experiment, notebook.points(), &claims)?;
    Ok(Outcome {
        claims,
        summary,
        unjudged: experiment.too_little(),
    })
}

fn experiment(order: &Order) -> Result<Box<dyn Experiment>, StudyError> {
    Ok(match order.kind {
        StudyKind::Stationarity => Box::new(Stationarity::new(order)?),
        StudyKind::Gradient => Box::new(Gradient::new(order)?),
        StudyKind::Figure2 => Box::new(Figure2::new(order)?),
        StudyKind::Figure1 => Box::new(Figure1::new(order)?),
        StudyKind::Cost => Box::new(Cost::new(order)?),
    })
}

fn measure(
    experiment: &dyn Experiment,
    runs: &[Run],
    notebook: &mut Notebook,
    progress: &dyn Progress,
) -> Result<(), StudyError> {
    let end = |run: &Run| experiment.places(&run.series).last().copied().unwrap_or(0);
    let is_done = |run: &&Run, notebook: &Notebook| notebook.points().holds(run, end(run));
    let done = runs.iter().filter(|run| is_done(run, notebook)).map(end);
    progress.begin(runs.iter().map(end).sum(), done.sum());
    for run in runs {
        if is_done(&run, notebook) {
            continue;
        }
        progress.turn_to(&format!("{}, seed {}", run.series, run.seed));
        experiment.measure(run, &mut Desk::new(run, notebook, progress))?;
    }
    Ok(())
}

//! Runs a study: measures the runs that are not finished yet, one after the other, then writes the report.

use std::path::PathBuf;

use serde_json::json;

use super::{
    Claim, Progress, Run, StudyConfig, StudyError, StudyKind, cost::Cost, experiment::Experiment,
    figure1::Figure1, figure2::Figure2, gradient::Gradient, report, results_log::ResultsLog,
    run_recorder::RunRecorder, stationarity::Stationarity, towers::Towers,
};

/// The result of a study.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The claims with their evidence.
    pub claims: Vec<Claim>,
    /// Path of the summary, a Markdown file.
    pub summary: PathBuf,
    /// Why the claims are not judged: too little was measured. `None` if they are.
    pub unjudged: Option<String>,
}

impl Outcome {
    /// Whether all claims hold, judged or not.
    pub fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

/// Runs a study and writes `points.csv`, `points.json`, `verdict.json`, the plots and `summary.md` into the output folder. Computes in
/// rayon's current pool.
///
/// A study may be interrupted at any time. With the same settings and folder it continues from its last saved state; seeds may be added.
///
/// # Errors
/// [`StudyError::Config`] for settings or images that cannot be used, or a folder with points of other settings; the other variants for
/// files, steps and plots that fail.
pub fn run_study(config: &StudyConfig, progress: &dyn Progress) -> Result<Outcome, StudyError> {
    if config.seeds.is_empty() {
        return Err(StudyError::config("name at least one seed"));
    }
    let experiment = experiment(config)?;
    let head = json!({"study": config.kind.name(), "settings": experiment.settings()});
    let mut log = ResultsLog::open(&config.out, &head)?;
    let runs: Vec<Run> = config
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
    measure(&*experiment, &runs, &mut log, progress)?;
    progress.finish();
    log.remove_state()?;
    let claims = experiment.judge(log.points());
    let summary = report::write(config, &*experiment, log.points(), &claims)?;
    Ok(Outcome {
        claims,
        summary,
        unjudged: experiment.unjudged_reason(),
    })
}

fn experiment(config: &StudyConfig) -> Result<Box<dyn Experiment>, StudyError> {
    Ok(match config.kind {
        StudyKind::Stationarity => Box::new(Stationarity::new(config)?),
        StudyKind::Gradient => Box::new(Gradient::new(config)?),
        StudyKind::Figure2 => Box::new(Figure2::new(config)?),
        StudyKind::Figure1 => Box::new(Figure1::new(config)?),
        StudyKind::Cost => Box::new(Cost::new(config)?),
        StudyKind::Towers => Box::new(Towers::new(config)?),
    })
}

fn measure(
    experiment: &dyn Experiment,
    runs: &[Run],
    log: &mut ResultsLog,
    progress: &dyn Progress,
) -> Result<(), StudyError> {
    let end = |run: &Run| {
        let positions = experiment.positions(&run.series);
        positions.last().copied().unwrap_or(0)
    };
    let is_done = |run: &&Run, log: &ResultsLog| log.points().contains(run, end(run));
    let done = runs.iter().filter(|run| is_done(run, log)).map(end);
    progress.begin(runs.iter().map(end).sum(), done.sum());
    for run in runs {
        if is_done(&run, log) {
            continue;
        }
        progress.begin_run(&format!("{}, seed {}", run.series, run.seed));
        experiment.measure(run, &mut RunRecorder::new(run, log, progress))?;
    }
    Ok(())
}

//! Times one piece of work that is repeated.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::BenchError;

/// What a run of a cell's work takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Wall time in seconds, the median.
    pub seconds: f64,
    /// The least: other programs only ever make it longer.
    pub best_seconds: f64,
    /// Processor time of all threads; hardly depends on other programs. `None` where the system does not tell.
    pub processor_seconds: Option<f64>,
    /// Peak memory of the work and its inputs. `None` where it was not, or cannot be, measured.
    pub peak_bytes: Option<u64>,
}

impl Figure {
    /// One figure from those of several rounds: medians, the best, the largest peak. `None` of nothing.
    pub fn of_rounds(rounds: &[Self]) -> Option<Self> {
        let processor: Option<Vec<f64>> = rounds.iter().map(|one| one.processor_seconds).collect();
        let best = rounds.iter().map(|one| one.best_seconds).reduce(f64::min);
        Some(Self {
            seconds: median(rounds.iter().map(|one| one.seconds).collect())?,
            best_seconds: best?,
            processor_seconds: processor.and_then(median),
            peak_bytes: rounds.iter().filter_map(|one| one.peak_bytes).max(),
        })
    }
}

/// Runs `work` once unmeasured, so that weights are packed and memory is there, then for `budget`, at least once.
pub(super) fn watch(
    budget: Duration,
    mut work: impl FnMut() -> Result<(), BenchError>,
) -> Result<Figure, BenchError> {
    work()?;
    let mut runs = Vec::new();
    let (begun, processor) = (Instant::now(), processor_seconds());
    while runs.is_empty() || begun.elapsed() < budget {
        let start = Instant::now();
        work()?;
        runs.push(start.elapsed().as_secs_f64());
    }
    let spent = processor_seconds().zip(processor);
    Ok(Figure {
        best_seconds: runs.iter().copied().fold(f64::INFINITY, f64::min),
        processor_seconds: spent.map(|(end, start)| (end - start) / runs.len() as f64),
        seconds: median(runs).unwrap_or_default(),
        peak_bytes: None,
    })
}

/// The middle value, or the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

/// Processor time of all threads of this process so far (Linux only): `schedstat` counts nanoseconds, `stat` only ticks.
fn processor_seconds() -> Option<f64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let spent = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    let nanoseconds = spent.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
    Some(nanoseconds.sum::<u64>() as f64 / 1e9).filter(|seconds| *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_become_medians_with_the_best_beside() {
        let round = |seconds, best_seconds, peak_bytes| Figure {
            seconds,
            best_seconds,
            processor_seconds: Some(2.0 * seconds),
            peak_bytes,
        };
        let rounds = [
            round(3.0, 2.0, None),
            round(1.0, 0.5, Some(7)),
            round(9.0, 1.0, Some(5)),
        ];
        let wanted = Figure {
            seconds: 3.0,
            best_seconds: 0.5,
            processor_seconds: Some(6.0),
            peak_bytes: Some(7),
        };
        assert_eq!(Figure::of_rounds(&rounds), Some(wanted));
        assert_eq!(Figure::of_rounds(&[]), None);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn work_is_done_once_unmeasured_and_once_however_short_the_time() {
        let mut runs = 0;
        let figure = watch(Duration::ZERO, || {
            runs += 1;
            Ok(())
        });
        assert_eq!(runs, 2);
        assert!(figure.unwrap().best_seconds < f64::INFINITY);
    }
}

//! The measured points, statistics over seeds, and claims.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One run: a series of a study under one seed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// Seed of everything random in it.
    pub seed: u64,
    /// What is compared, such as `emc2-walk, b = 4`.
    pub series: String,
}

/// The values measured at one position of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The run that was measured.
    #[serde(flatten)]
    pub run: Run,
    /// The position: a number of steps, visits or chains.
    pub at: u64,
    /// Values by name.
    pub values: BTreeMap<String, f64>,
}

/// All measured points, at most one for each position of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    points: BTreeMap<(Run, u64), BTreeMap<String, f64>>,
}

impl Points {
    /// Adds a point, or replaces the one at the same position of the same run.
    pub fn insert(&mut self, point: Point) {
        self.points.insert((point.run, point.at), point.values);
    }

    /// All points, ordered by seed, series and position.
    pub fn iter(&self) -> impl Iterator<Item = Point> {
        self.points.iter().map(|((run, at), values)| Point {
            run: run.clone(),
            at: *at,
            values: values.clone(),
        })
    }

    /// The names of all values, sorted.
    pub fn names(&self) -> BTreeSet<&str> {
        let names = self.points.values().flat_map(BTreeMap::keys);
        names.map(String::as_str).collect()
    }

    /// Whether the run was measured at position `at`.
    pub fn contains(&self, run: &Run, at: u64) -> bool {
        self.points.contains_key(&(run.clone(), at))
    }

    /// The positions at which `value` of `series` was measured, each with one value for each seed.
    pub fn curve(&self, series: &str, value: &str) -> BTreeMap<u64, Vec<f64>> {
        let mut curve = BTreeMap::<u64, Vec<f64>>::new();
        for ((run, at), values) in &self.points {
            if let (true, Some(found)) = (run.series == series, values.get(value)) {
                curve.entry(*at).or_default().push(*found);
            }
        }
        curve
    }

    /// Statistics over the seeds of `value` of `series` at its last position; NaN if it was never measured.
    pub fn last(&self, series: &str, value: &str) -> Statistics {
        let curve = self.curve(series, value);
        Statistics::new(curve.values().next_back().map_or(&[][..], |values| values))
    }

    /// The mean of `value` over the seeds and the last quarter of the positions, which is less noisy than the last position alone.
    pub fn late(&self, series: &str, value: &str) -> f64 {
        let curve = self.curve(series, value);
        let skipped = curve.len() - curve.len().div_ceil(4);
        let late: Vec<f64> = curve.into_values().skip(skipped).flatten().collect();
        Statistics::new(&late).mean
    }

    /// Statistics over the seeds of `value` of `series` at position `at`; NaN if it was not measured there.
    pub fn at(&self, series: &str, value: &str, at: u64) -> Statistics {
        let curve = self.curve(series, value);
        Statistics::new(curve.get(&at).map_or(&[][..], |values| values))
    }
}

/// Statistics of one value over the seeds. All fields are NaN if there is no value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with n − 1 in the denominator; 0 for a single value.
    pub std_dev: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl Statistics {
    /// The statistics of any number of values.
    pub fn new(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            std_dev: (squares / (count - 1.0).max(1.0)).sqrt(),
            min: values.iter().copied().fold(f64::NAN, f64::min),
            max: values.iter().copied().fold(f64::NAN, f64::max),
        }
    }
}

/// A statement that a study tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The statement, one sentence.
    pub text: String,
    /// Whether it holds.
    pub holds: bool,
    /// The measured values that decide it.
    pub evidence: String,
}

impl Claim {
    /// A claim with its evidence.
    pub fn new(text: impl Into<String>, holds: bool, evidence: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            holds,
            evidence: evidence.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(seed: u64, series: &str, at: u64, value: f64) -> Point {
        let series = series.to_owned();
        Point {
            run: Run { seed, series },
            at,
            values: [("error".to_owned(), value)].into(),
        }
    }

    #[test]
    fn a_curve_gathers_the_seeds_at_each_position() {
        let mut points = Points::default();
        for (seed, at, value) in [(1, 10, 1.0), (2, 10, 3.0), (1, 20, 5.0), (1, 20, 7.0)] {
            points.insert(point(seed, "a", at, value));
        }
        points.insert(point(1, "b", 10, 100.0));
        let curve = points.curve("a", "error");
        assert_eq!(curve, [(10, vec![1.0, 3.0]), (20, vec![7.0])].into());
        let found = points.at("a", "error", 10);
        assert_eq!((found.mean, found.min, found.max), (2.0, 1.0, 3.0));
        assert_eq!(found.std_dev, 2.0_f64.sqrt());
        assert_eq!(points.last("a", "error").mean, 7.0);
        assert!(points.last("c", "error").mean.is_nan());
    }
}

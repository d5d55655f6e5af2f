//! What is measured: named values of a run at places along it; statistics over seeds; claims. Must never know: files, how it was measured.

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

/// What was measured at one place of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// Steps, visits or chains: the study's abscissa.
    pub at: u64,
    /// By name.
    pub values: BTreeMap<String, f64>,
}

/// All that was measured, each place of a run once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    points: BTreeMap<(Run, u64), BTreeMap<String, f64>>,
}

impl Points {
    /// Adds a point; one that is measured again takes the place of the old one.
    pub fn insert(&mut self, point: Point) {
        self.points.insert((point.run, point.at), point.values);
    }

    /// All points by seed, series and place.
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

    /// Whether a place of a run was measured.
    pub fn holds(&self, run: &Run, at: u64) -> bool {
        self.points.contains_key(&(run.clone(), at))
    }

    /// The places at which `value` of `series` was measured, each with one value a seed.
    pub fn curve(&self, series: &str, value: &str) -> BTreeMap<u64, Vec<f64>> {
        let mut curve = BTreeMap::<u64, Vec<f64>>::new();
        for ((run, at), values) in &self.points {
            if let (true, Some(found)) = (run.series == series, values.get(value)) {
                curve.entry(*at).or_default().push(*found);
            }
        }
        curve
    }

    /// `value` of `series` at its last place, over the seeds; nothing if it was never measured.
    pub fn last(&self, series: &str, value: &str) -> Spread {
        let curve = self.curve(series, value);
        Spread::of(curve.values().next_back().map_or(&[][..], |values| values))
    }

    /// The mean of `value` over the seeds and over the last quarter of the places: what a single noisy place does not decide.
    pub fn late(&self, series: &str, value: &str) -> f64 {
        let curve = self.curve(series, value);
        let skipped = curve.len() - curve.len().div_ceil(4);
        let late: Vec<f64> = curve.into_values().skip(skipped).flatten().collect();
        Spread::of(&late).mean
    }

    /// As [`Points::last`], at one place.
    pub fn at(&self, series: &str, value: &str, at: u64) -> Spread {
        let curve = self.curve(series, value);
        Spread::of(curve.get(&at).map_or(&[][..], |values| values))
    }
}

/// One value over the seeds. Not a number where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of a seed (n − 1; 0 of one seed).
    pub deviation: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of any number of values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            deviation: (squares / (count - 1.0).max(1.0)).sqrt(),
            least: values.iter().copied().fold(f64::NAN, f64::min),
            most: values.iter().copied().fold(f64::NAN, f64::max),
        }
    }
}

/// Something that the study set out to show, and whether it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// One sentence.
    pub text: String,
    /// Whether it holds.
    pub holds: bool,
    /// The figures it was judged by.
    pub evidence: String,
}

impl Claim {
    /// A claim with its figures.
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
    fn a_curve_gathers_the_seeds_at_each_place() {
        let mut points = Points::default();
        for (seed, at, value) in [(1, 10, 1.0), (2, 10, 3.0), (1, 20, 5.0), (1, 20, 7.0)] {
            points.insert(point(seed, "a", at, value));
        }
        points.insert(point(1, "b", 10, 100.0));
        let curve = points.curve("a", "error");
        assert_eq!(curve, [(10, vec![1.0, 3.0]), (20, vec![7.0])].into());
        let spread = points.at("a", "error", 10);
        assert_eq!((spread.mean, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(spread.deviation, 2.0_f64.sqrt());
        assert_eq!(points.last("a", "error").mean, 7.0);
        assert!(points.last("c", "error").mean.is_nan());
    }
}

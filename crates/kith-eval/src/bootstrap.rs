//! How much better one model answers than another on the same questions, with an interval from a paired bootstrap.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::score::Score;

/// Share of the resamples that lies below a 95 % interval, and above it.
const TAIL: f64 = 0.025;

/// How the bootstrap draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootstrapConfig {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of their draws.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self {
            resamples: 10_000,
            seed: 0,
        }
    }
}

/// The difference between the shares of queries that two models answer, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Number of independent units.
    pub units: usize,
    /// Share of the first model, less that of the second.
    pub difference: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// How likely a difference of at least this magnitude is if the models are equally good: the exact paired test of
    /// [`sign_flip`](crate::sign_flip), two-sided.
    pub p_value: f64,
}

impl Score {
    /// The difference of the shares of this score and `other`. `None` where they count other units.
    ///
    /// The interval is the percentile interval of a paired bootstrap (Efron & Tibshirani 1993, *An introduction to the bootstrap*, §13.3):
    /// whole units are drawn with replacement, each with the answers of both models. The result depends on the seed, not on the number of
    /// threads. Runs in rayon's current pool.
    pub fn difference(&self, other: &Self, config: &BootstrapConfig) -> Option<PairedDifference> {
        let tails = self.differences(other).map(|d| crate::sign_flip(&d))?;
        let mut resampled: Vec<f64> = (0..config.resamples as u64)
            .into_par_iter()
            .map(|resample| self.resampled(other, config.seed, resample))
            .collect();
        resampled.sort_unstable_by(f64::total_cmp);
        let difference = self.share() - other.share();
        let below = (TAIL * resampled.len() as f64) as usize;
        let end = |index: usize| resampled.get(index).copied().unwrap_or(difference);
        Some(PairedDifference {
            units: self.asked.len(),
            difference,
            low: end(below),
            high: end(resampled.len().saturating_sub(below + 1)),
            p_value: (2.0 * tails.lead.min(tails.deficit)).min(1.0),
        })
    }

    /// The difference over as many units as there are, drawn with replacement.
    fn resampled(&self, other: &Self, seed: u64, resample: u64) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(resample);
        let units = self.asked.len();
        let (mut lead, mut asked) = (0_i64, 0_u64);
        for _ in 0..units {
            let unit = random.random_range(0..units);
            lead += i64::from(self.found[unit]) - i64::from(other.found[unit]);
            asked += u64::from(self.asked[unit]);
        }
        lead as f64 / asked.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(found: Vec<u32>) -> Score {
        Score {
            questions: String::new(),
            asked: vec![1; found.len()],
            found,
        }
    }

    #[test]
    fn the_interval_is_that_of_the_sum_of_independent_differences() {
        // Of 400 units the first model finds 300, the second 260 of these.
        let answers = |from: u32| score((0..400).map(|unit| u32::from(unit >= from)).collect());
        let (one, other) = (answers(100), answers(140));
        let config = BootstrapConfig::default();
        let found = one.difference(&other, &config).unwrap();
        assert!((found.difference - 0.1).abs() < 1e-12);
        // A unit differs by 1 with probability 0.1: the standard error is √(0.1 · 0.9 / 400) = 0.015. The bootstrap's ends lie on
        // multiples of 1 / 400, and are themselves 0.0005 uncertain.
        let half = 1.96 * 0.015;
        assert!((found.low - (0.1 - half)).abs() < 0.004, "{found:?}");
        assert!((found.high - (0.1 + half)).abs() < 0.004, "{found:?}");
        assert_eq!(found.p_value, 2.0 / 2.0_f64.powi(40));
    }

    #[test]
    fn units_keep_the_answers_of_both_models_together() {
        // Both models are right on the same half of the units: how hard a unit is moves both alike.
        let half: Vec<u32> = (0..100).map(|unit| unit % 2).collect();
        let one = score(half);
        let found = one.difference(&one, &BootstrapConfig::default()).unwrap();
        assert_eq!((found.low, found.high, found.p_value), (0.0, 0.0, 1.0));
    }

    #[test]
    fn equal_seeds_draw_equally_whatever_the_threads_and_others_do_not() {
        let one = score((0..50).map(|unit| u32::from(unit % 3 == 0)).collect());
        let other = score((0..50).map(|unit| u32::from(unit % 4 == 0)).collect());
        let drawn = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let config = BootstrapConfig {
                resamples: 200,
                seed,
            };
            let pool = pool.build().unwrap();
            pool.install(|| one.difference(&other, &config).unwrap())
        };
        assert_eq!(drawn(1, 3), drawn(4, 3));
        let seeds = (0..5).map(|seed| drawn(1, seed).low.to_bits());
        let different: std::collections::HashSet<u64> = seeds.collect();
        assert!(different.len() > 1);
    }

    #[test]
    fn other_units_have_no_difference() {
        let config = BootstrapConfig::default();
        assert_eq!(score(vec![1]).difference(&score(vec![1, 0]), &config), None);
    }
}

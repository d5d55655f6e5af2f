//! The figures of an audit of the sampler, and its verdict.

use std::fmt;

use serde::Serialize;

use crate::types::CheckpointId;
use kith_eval::{ChainDraw, DrawComparison};
use kith_mcmc::ChainState;

/// Fewest chains that say anything.
pub const MIN_CHAINS: usize = 20;
/// Visits without a move from which a chain counts as frozen.
pub const FROZEN_VISITS: u32 = 20;
/// A test that fails by chance less often than this is taken as failed.
const SIGNIFICANCE: f64 = 0.001;
/// The z value of that probability, for both signs.
const SIGNIFICANT_Z: f64 = 3.29;
/// A normal distribution that is shifted by 0.25 standard deviations has distance 0.1 from the one that is not.
const SHIFT_OF_DISTANCE: f64 = 2.5;

/// Least [`DrawComparison::lean`] of states that prefer what they should.
const LEAST_LEAN: f64 = 0.5;

/// One chain's state and its place in the softmax.
pub(super) struct Judged {
    pub(super) state: ChainState,
    pub(super) draw: ChainDraw,
}

/// How states compare with the softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No difference that chance does not explain.
    Agrees,
    /// A difference, and a small one.
    Close,
    /// A large one, to the side of weaker preferences, which are there all the same.
    Flatter,
    /// Another large difference.
    Differs,
}

impl Verdict {
    fn new(compared: &DrawComparison, frozen_share: f64, tolerance: f64) -> Self {
        let failed = compared.ranks.p_value < SIGNIFICANCE || compared.z().abs() > SIGNIFICANT_Z;
        let large = compared.ranks.distance > tolerance
            || compared.shift().abs() > SHIFT_OF_DISTANCE * tolerance;
        let flatter = compared.z() < 0.0 && compared.lean() >= LEAST_LEAN && frozen_share < 0.5;
        match (failed, large, flatter) {
            (false, _, _) => Self::Agrees,
            (true, false, _) => Self::Close,
            (true, true, true) => Self::Flatter,
            (true, true, false) => Self::Differs,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agrees => "the chains hold draws from their softmaxes, as far as so many can tell",
            Self::Close => {
                "the chains are near their softmaxes: they differ by more than chance and by less than the tolerance, as chains do that were moved by older weights"
            }
            Self::Flatter => {
                "the chains prefer what they should, less sharply than the softmax over plain views: augmented views do that, and young chains"
            }
            Self::Differs => "the chains do not hold draws from their softmaxes",
        })
    }
}

/// How the ranks of the states are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankFigures {
    /// Largest difference of their cumulative share from the uniform one (Kolmogorov–Smirnov).
    pub distance: f64,
    /// Probability of at least this distance for independent draws from the softmaxes.
    pub p_value: f64,
}

/// The mean score β φ(x)·ψ(z).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreFigures {
    /// Of the states.
    pub chains: f64,
    /// Under the softmaxes.
    pub exact: f64,
    /// Standard error of the first, for independent draws from the softmaxes.
    pub standard_error: f64,
    /// The difference in standard errors.
    pub z: f64,
    /// 0 for states that follow no score, 1 for draws from the softmaxes.
    pub lean: f64,
}

/// Figures of some whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Half are not above it.
    pub median: u64,
    /// Nine in ten are not above it.
    pub p90: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    fn new(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let last = values.len().saturating_sub(1);
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        Self {
            mean: values.iter().map(|value| *value as f64).sum::<f64>() / (last + 1) as f64,
            median: at(last / 2),
            p90: at(last * 9 / 10),
            max: at(last),
        }
    }
}

/// Stored scores of the states against those under the checkpoint's weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreGap {
    /// Mean of stored minus fresh.
    pub mean: f64,
    /// Mean of its magnitude.
    pub mean_absolute: f64,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AuditScope {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Its step.
    pub step: u64,
    /// Inverse temperature.
    pub beta: f32,
    /// Seed of the choice of images and chains.
    pub seed: u64,
    /// Chains of the checkpoint.
    pub chains: usize,
    /// Chains whose state is no candidate any more; they start anew at their next visit.
    pub dropped_chains: usize,
    /// Images that states were compared among.
    pub images: usize,
    /// Images that these were chosen from.
    pub all_images: usize,
    /// Chosen images that are gone, damaged or cannot be decoded.
    pub missing_images: usize,
}

/// An audit's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SamplerReport {
    /// What was compared.
    #[serde(flatten)]
    pub scope: AuditScope,
    /// Chains that were compared.
    pub anchors: usize,
    /// Mean number of images that a softmax is spread over (exp of its entropy).
    pub effective_images: f64,
    /// See [`RankFigures`].
    pub ranks: RankFigures,
    /// See [`ScoreFigures`].
    pub score: ScoreFigures,
    /// Share of the compared chains that have not moved for [`FROZEN_VISITS`] visits.
    pub frozen_share: f64,
    /// Visits of the compared chains.
    pub visits: Spread,
    /// Steps since the states were last scored.
    pub age: Spread,
    /// See [`ScoreGap`].
    pub stored_minus_fresh: ScoreGap,
    /// The verdict.
    pub verdict: Verdict,
}

impl SamplerReport {
    /// Compares chains; `None` where there are fewer than [`MIN_CHAINS`].
    pub(super) fn new(scope: AuditScope, judged: &[Judged], tolerance: f64) -> Option<Self> {
        if judged.len() < MIN_CHAINS {
            return None;
        }
        let draws: Vec<ChainDraw> = judged.iter().map(|judged| judged.draw).collect();
        let compared = DrawComparison::new(&draws)?;
        let count = judged.len() as f64;
        let mean = |value: &dyn Fn(&Judged) -> f64| judged.iter().map(value).sum::<f64>() / count;
        let gap = |judged: &Judged| f64::from(judged.state.log_score) - judged.draw.score;
        let still = |judged: &Judged| judged.state.visits_since_move >= FROZEN_VISITS;
        let age = |judged: &Judged| scope.step.saturating_sub(judged.state.step.into());
        let visits = |judged: &Judged| judged.state.visits.into();
        let frozen_share = mean(&|judged| f64::from(u8::from(still(judged))));
        Some(Self {
            scope,
            anchors: judged.len(),
            effective_images: compared.effective,
            ranks: RankFigures {
                distance: compared.ranks.distance,
                p_value: compared.ranks.p_value,
            },
            score: ScoreFigures {
                chains: compared.mean_score,
                exact: compared.expected,
                standard_error: compared.standard_error,
                z: compared.z(),
                lean: compared.lean(),
            },
            frozen_share,
            visits: Spread::new(judged.iter().map(visits).collect()),
            age: Spread::new(judged.iter().map(age).collect()),
            stored_minus_fresh: ScoreGap {
                mean: mean(&gap),
                mean_absolute: mean(&|judged| gap(judged).abs()),
            },
            verdict: Verdict::new(&compared, frozen_share, tolerance),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_eval::UniformTest;

    fn compared(distance: f64, p_value: f64, z: f64) -> DrawComparison {
        DrawComparison {
            chains: 100,
            ranks: UniformTest { distance, p_value },
            mean_score: z * 0.1,
            expected: 0.0,
            unweighted: -5.0,
            standard_error: 0.1,
            effective: 10.0,
        }
    }

    #[test]
    fn the_verdict_asks_for_chance_first_and_for_the_size_then() {
        for (distance, p_value, z, frozen, verdict) in [
            (0.05, 0.9, 1.0, 0.0, Verdict::Agrees),
            // Large, but not more than chance gives.
            (0.15, 0.02, 3.0, 0.0, Verdict::Agrees),
            (0.09, 1e-4, 0.0, 0.0, Verdict::Close),
            // The mean is off by 0.35 standard deviations of one state's score.
            (0.05, 0.5, 3.5, 0.0, Verdict::Differs),
            (0.05, 0.5, -3.5, 0.0, Verdict::Flatter),
            (0.05, 0.5, 2.4, 0.0, Verdict::Agrees),
            (0.2, 1e-4, 0.0, 0.0, Verdict::Differs),
            // Half of the way from no preference, and below it.
            (0.4, 1e-4, -24.0, 0.0, Verdict::Flatter),
            (0.4, 1e-4, -26.0, 0.0, Verdict::Differs),
            (0.4, 1e-4, -24.0, 0.6, Verdict::Differs),
        ] {
            let found = Verdict::new(&compared(distance, p_value, z), frozen, 0.1);
            assert_eq!(found, verdict, "{distance} {p_value} {z} {frozen}");
        }
    }

    #[test]
    fn a_spread_is_that_of_its_numbers() {
        let spread = Spread::new((1..=10).rev().collect());
        let Spread {
            mean,
            median,
            p90,
            max,
        } = spread;
        assert_eq!((mean, median, p90, max), (5.5, 5, 9, 10));
        assert_eq!(Spread::new(vec![7]).p90, 7);
    }
}

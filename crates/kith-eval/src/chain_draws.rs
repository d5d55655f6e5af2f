//! Compares states of Markov chains with the softmax that each should be drawn from. A chain has one state, so the comparison is over many chains, each
//! with a softmax of its own.

use crate::{UniformTest, uniform_test};

/// The state of one chain within the softmax over its candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainDraw {
    /// Probability of a smaller score, and a random part of that of an equal one: uniform on [0, 1] if the state is drawn from the softmax
    /// (the probability integral transform, randomised within ties).
    pub rank: f64,
    /// The state's score.
    pub score: f64,
    /// Mean score under the softmax.
    pub expected: f64,
    /// Mean score of all candidates.
    pub unweighted: f64,
    /// Variance of the score under the softmax.
    pub variance: f64,
    /// exp of the entropy of the softmax: the number of candidates that it is spread over.
    pub effective: f64,
}

impl ChainDraw {
    /// `scores`: β φ(x)·ψ(z) of each candidate. `state`: the chain's. `uniform`: a random number in [0, 1), independent of the rest.
    ///
    /// `None` if there is no such candidate, or a score is not finite.
    pub fn new(scores: &[f32], state: usize, uniform: f64) -> Option<Self> {
        let score = f64::from(*scores.get(state)?);
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !scores.iter().all(|score| score.is_finite()) {
            return None;
        }
        let (mut total, mut below, mut equal) = (0.0, 0.0, 0.0);
        let (mut first, mut second) = (0.0, 0.0);
        for value in scores.iter().map(|value| f64::from(*value)) {
            // Differences to the largest, so that nothing overflows and the variance loses no digits.
            let difference = value - f64::from(largest);
            let weight = difference.exp();
            total += weight;
            first += weight * difference;
            second += weight * difference * difference;
            if value < score {
                below += weight;
            } else if value == score {
                equal += weight;
            }
        }
        let mean = first / total;
        Some(Self {
            rank: ((below + uniform * equal) / total).clamp(0.0, 1.0),
            score,
            expected: f64::from(largest) + mean,
            unweighted: scores.iter().map(|score| f64::from(*score)).sum::<f64>()
                / scores.len() as f64,
            variance: (second / total - mean * mean).max(0.0),
            effective: (total.ln() - mean).exp(),
        })
    }
}

/// Many chains against their softmaxes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawComparison {
    /// Chains.
    pub chains: usize,
    /// How far [`ChainDraw::rank`] is from uniform.
    pub ranks: UniformTest,
    /// Mean score of the states.
    pub mean_score: f64,
    /// What that mean should be.
    pub expected: f64,
    /// What that mean would be of states that any candidate is as likely to be.
    pub unweighted: f64,
    /// Standard deviation of the mean score if the states are drawn independently from their softmaxes.
    pub standard_error: f64,
    /// Mean of [`ChainDraw::effective`].
    pub effective: f64,
}

impl DrawComparison {
    /// Compares. `None`: there is no chain.
    pub fn new(draws: &[ChainDraw]) -> Option<Self> {
        let chains = draws.len();
        if chains == 0 {
            return None;
        }
        let count = chains as f64;
        let mean = |value: fn(&ChainDraw) -> f64| draws.iter().map(value).sum::<f64>() / count;
        let ranks: Vec<f64> = draws.iter().map(|draw| draw.rank).collect();
        Some(Self {
            chains,
            ranks: uniform_test(&ranks),
            mean_score: mean(|draw| draw.score),
            expected: mean(|draw| draw.expected),
            unweighted: mean(|draw| draw.unweighted),
            standard_error: (mean(|draw| draw.variance) / count).sqrt(),
            effective: mean(|draw| draw.effective),
        })
    }

    /// The difference of the mean score in standard errors; 0 where every softmax is on one score.
    pub fn z(&self) -> f64 {
        if self.standard_error > 0.0 {
            (self.mean_score - self.expected) / self.standard_error
        } else {
            0.0
        }
    }

    /// How far the mean score is from that of any candidate to what it should be: 0 for states that follow no score, 1 for draws from the softmaxes.
    pub fn lean(&self) -> f64 {
        let whole = self.expected - self.unweighted;
        if whole > 0.0 {
            (self.mean_score - self.unweighted) / whole
        } else {
            1.0
        }
    }

    /// The difference of the mean score in standard deviations of one state's score.
    pub fn shift(&self) -> f64 {
        self.z() / (self.chains as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A softmax over scores with ties, for each of so many chains, and a state of each by `choose`.
    fn compare(choose: impl Fn(&[f32], &mut ChaCha8Rng) -> usize) -> DrawComparison {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let draw = |_| {
            let score = |random: &mut ChaCha8Rng| (random.random_range(-30..30) as f32) / 10.0;
            let scores: Vec<f32> = (0..40).map(|_| score(&mut random)).collect();
            let state = choose(&scores, &mut random);
            ChainDraw::new(&scores, state, random.random()).unwrap()
        };
        let draws: Vec<ChainDraw> = (0..1000).map(draw).collect();
        DrawComparison::new(&draws).unwrap()
    }

    fn by_softmax(scores: &[f32], random: &mut ChaCha8Rng) -> usize {
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        let mut left = random.random::<f32>() * total;
        let found = scores.iter().position(|score| {
            left -= score.exp();
            left < 0.0
        });
        found.unwrap_or(scores.len() - 1)
    }

    #[test]
    fn states_drawn_from_their_softmax_have_uniform_ranks_and_the_expected_mean() {
        let honest = compare(by_softmax);
        assert!(honest.ranks.p_value > 0.01, "{honest:?}");
        assert!(honest.z().abs() < 3.0, "{honest:?}");
    }

    #[test]
    fn uniform_states_the_likeliest_ones_and_a_colder_softmax_are_found_out() {
        let uniform = compare(|scores, random| random.random_range(0..scores.len()));
        assert!(
            uniform.ranks.distance > 0.4 && uniform.z() < -20.0,
            "{uniform:?}"
        );
        // A thousand states: a standard error of 0.02 of the way.
        assert!(uniform.lean().abs() < 0.07, "{uniform:?}");
        let likeliest = compare(|scores, _| {
            let best = scores.iter().copied().fold(f32::MIN, f32::max);
            scores.iter().position(|score| *score == best).unwrap_or(0)
        });
        assert!(
            likeliest.ranks.distance > 0.4 && likeliest.z() > 20.0,
            "{likeliest:?}"
        );
        let colder = compare(|scores, random| {
            let scores: Vec<f32> = scores.iter().map(|score| 1.5 * score).collect();
            by_softmax(&scores, random)
        });
        let warmer = compare(|scores, random| {
            let scores: Vec<f32> = scores.iter().map(|score| 0.7 * score).collect();
            by_softmax(&scores, random)
        });
        assert!(
            (0.6..0.95).contains(&warmer.lean()) && warmer.z() < -4.0,
            "{warmer:?}"
        );
        assert!(
            colder.ranks.p_value < 1e-3 && colder.z() > 4.0,
            "{colder:?}"
        );
    }

    #[test]
    fn the_figures_of_one_state_are_those_of_its_softmax() {
        // Weights 1/4, 1/4 and 1/2, but for the rounding of an f32 near 10⁴.
        let scores = [1e4, 1e4, 1e4 + 2_f32.ln()];
        let tied = ChainDraw::new(&scores, 0, 0.5).unwrap();
        assert!((tied.rank - 0.25).abs() < 1e-3, "{tied:?}");
        let best = ChainDraw::new(&scores, 2, 0.0).unwrap();
        assert!((best.rank - 0.5).abs() < 1e-3, "{best:?}");
        // Entropy 1.5 bits.
        assert!((tied.effective - 8_f64.sqrt()).abs() < 1e-2, "{tied:?}");
        let half = f64::from(scores[2] - scores[0]) / 2.0;
        assert!(
            (tied.expected - 1e4 - half).abs() < 1e-3 && (tied.variance - half * half).abs() < 1e-3
        );
        assert_eq!(ChainDraw::new(&scores, 3, 0.5), None);
        assert_eq!(ChainDraw::new(&[0.0, f32::NAN], 0, 0.5), None);
    }

    #[test]
    fn nothing_to_choose_from_is_no_deviation() {
        let only = ChainDraw::new(&[3.0], 0, 0.25).unwrap();
        let compared = DrawComparison::new(&[only]).unwrap();
        assert_eq!((compared.z(), compared.effective), (0.0, 1.0));
        assert_eq!(DrawComparison::new(&[]), None);
    }
}

//! Weights of pairs: how often a pair is drawn, and how much it counts in the loss when it is.

use std::collections::BTreeMap;

/// How much a pair counts in the loss, relative to the other pairs: a number from [`PairWeight::MIN`] to [`PairWeight::MAX`].
///
/// It is held in whole millionths, so that sums of weights do not depend on the order of addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairWeight(u32);

/// Parts of a weight of 1.
const PARTS: f64 = 1e6;

impl PairWeight {
    /// The smallest weight, 0.001.
    pub const MIN: Self = Self(1_000);
    /// The weight of a pair that was given none.
    pub const ONE: Self = Self(1_000_000);
    /// The largest weight, 1000.
    pub const MAX: Self = Self(1_000_000_000);

    /// The weight nearest to `value`; `None` if it is not a number from [`PairWeight::MIN`] to [`PairWeight::MAX`].
    pub fn new(value: f64) -> Option<Self> {
        let range = Self::MIN.value()..=Self::MAX.value();
        // The range is that of a u32 in millionths.
        range
            .contains(&value)
            .then(|| Self((value * PARTS).round() as u32))
    }

    /// The weight as a number.
    pub fn value(self) -> f64 {
        f64::from(self.0) / PARTS
    }
}

impl Default for PairWeight {
    fn default() -> Self {
        Self::ONE
    }
}

/// The weights of the trained pairs.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Number of pairs of each weight.
    pairs: BTreeMap<PairWeight, u64>,
    total: u64,
    count: u64,
}

impl Weights {
    pub(super) fn insert(&mut self, weight: PairWeight) {
        *self.pairs.entry(weight).or_default() += 1;
        self.total += u64::from(weight.0);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, weight: PairWeight) {
        let Some(pairs) = self.pairs.get_mut(&weight) else {
            return;
        };
        *pairs -= 1;
        if *pairs == 0 {
            self.pairs.remove(&weight);
        }
        self.total -= u64::from(weight.0);
        self.count -= 1;
    }

    /// The mean weight in parts, rounded down: the heaviest pair is never lighter.
    fn mean(&self) -> u64 {
        (self.total / self.count.max(1)).max(1)
    }

    /// Takes time in proportion to the number of distinct weights.
    pub(super) fn draws(&self) -> Draws {
        let mean = self.mean();
        let capped = |(weight, pairs): (&PairWeight, &u64)| u64::from(weight.0).min(mean) * pairs;
        let capped: u64 = self.pairs.iter().map(capped).sum();
        Draws {
            share: DrawShare { mean },
            pairs_per_epoch: capped as f64 / mean as f64,
            normaliser: capped as f64 / self.total.max(1) as f64,
        }
    }

    pub(super) fn draw_share(&self) -> DrawShare {
        DrawShare { mean: self.mean() }
    }
}

/// How often pairs are drawn: in every epoch if they have at least the mean weight w̄, else in a share w / w̄ of the epochs.
#[derive(Clone, Copy, Debug)]
pub struct DrawShare {
    /// In parts.
    mean: u64,
}

impl DrawShare {
    /// The share of the epochs in which a pair of this weight is drawn, in (0, 1].
    pub fn of(self, weight: PairWeight) -> f64 {
        (f64::from(weight.0) / self.mean as f64).min(1.0)
    }
}

/// How pairs are drawn and what a drawn pair counts. A pair's share of the draws times its factor is proportional to its weight, so the mean of
/// the steps is the gradient of the weighted loss.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// How often pairs are drawn.
    pub share: DrawShare,
    /// Mean number of pairs that are drawn in an epoch.
    pub pairs_per_epoch: f64,
    normaliser: f64,
}

impl Draws {
    /// The factor of a drawn pair's terms in the loss of a step: max(1, w / w̄), divided by its mean over the draws. 1 if all pairs have the same
    /// weight.
    pub fn loss_factor(&self, weight: PairWeight) -> f32 {
        let relative = f64::from(weight.0) / self.share.mean as f64;
        (relative.max(1.0) * self.normaliser) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(values: &[f64]) -> Weights {
        let mut weights = Weights::default();
        for value in values {
            weights.insert(PairWeight::new(*value).unwrap());
        }
        weights
    }

    #[test]
    fn a_weight_is_a_number_in_range() {
        for value in [0.0, -1.0, 0.0009, 1000.1, f64::NAN, f64::INFINITY] {
            assert_eq!(PairWeight::new(value), None, "{value}");
        }
        for value in [0.001, 0.1, 1.0, 2.5, 1000.0] {
            assert_eq!(PairWeight::new(value).unwrap().value(), value);
        }
        assert_eq!(PairWeight::default().value(), 1.0);
    }

    #[test]
    fn draws_times_factor_are_the_weights_and_the_factors_of_draws_have_mean_one() {
        let values = [0.1, 0.1, 0.5, 1.0, 4.0, 20.0];
        let weights = weights(&values);
        let draws = weights.draws();
        let share = |value: f64| draws.share.of(PairWeight::new(value).unwrap());
        let counted = |value: f64| {
            share(value) * f64::from(draws.loss_factor(PairWeight::new(value).unwrap()))
        };
        for value in values {
            // The mean is rounded down to a millionth, and factors are f32.
            assert!(
                (counted(value) / counted(1.0) / value - 1.0).abs() < 1e-5,
                "{value}"
            );
        }
        let drawn: f64 = values.into_iter().map(share).sum();
        assert!((drawn - draws.pairs_per_epoch).abs() < 1e-9);
        let mean = values.into_iter().map(counted).sum::<f64>() / drawn;
        assert!((mean - 1.0).abs() < 1e-5, "{mean}");
        assert_eq!(share(20.0), 1.0);
    }

    #[test]
    fn equal_weights_change_nothing_whatever_they_are() {
        for value in [0.003, 1.0, 77.7] {
            let mut weights = weights(&[value; 7]);
            weights.insert(PairWeight::MAX);
            weights.remove(PairWeight::MAX);
            let (draws, weight) = (weights.draws(), PairWeight::new(value).unwrap());
            assert_eq!(
                (draws.share.of(weight), draws.loss_factor(weight)),
                (1.0, 1.0)
            );
            assert_eq!(draws.pairs_per_epoch, 7.0);
        }
    }
}

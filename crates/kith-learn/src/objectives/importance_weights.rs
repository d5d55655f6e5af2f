//! The choice of the carried negatives that are encoded with a gradient, and the importance weights that keep the gradient unbiased.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{LearnConfig, batch_layout::BatchLayout, objective::NegativeTerm};
use kith_mcmc::{Estimator, SidedImage};
use kith_seed::mix;

/// Whether some carried negatives may be left out.
pub(super) fn are_random(config: &LearnConfig) -> bool {
    match config.sampler.estimator {
        Estimator::Walk => config.carried_budget < 1.0,
        Estimator::Subset => config.roulette > 0.0,
    }
}

/// For each anchor the importance weight of its carried negative: 0 if it is left out. The mean over the randomness is 1, so that the
/// gradient stays unbiased given the weights of the terms.
pub(super) fn importance_weights(
    config: &LearnConfig,
    seeds: [u64; 2],
    layout: &BatchLayout,
    terms: &[Option<NegativeTerm>],
) -> Vec<f32> {
    let carried: Vec<Option<(SidedImage, f32)>> = terms
        .iter()
        .map(|term| term.as_ref()?.outside.first().copied())
        .collect();
    match config.sampler.estimator {
        Estimator::Walk => budget(config.carried_budget, seeds, &carried),
        Estimator::Subset => roulette(config.roulette, seeds, layout, &carried),
    }
}

/// Russian roulette: keeps each carried negative with probability min(1, weight / τ), independently.
fn roulette(
    tau: f32,
    [seed, step]: [u64; 2],
    layout: &BatchLayout,
    carried: &[Option<(SidedImage, f32)>],
) -> Vec<f32> {
    let play = |slot: u32, weight: f32| {
        let probability = (weight / tau).min(1.0);
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[
            seed,
            step,
            u64::from_be_bytes(*b"roulette"),
            u64::from(slot),
        ]));
        if random.random::<f32>() < probability {
            1.0 / probability
        } else {
            0.0
        }
    };
    let anchors = layout.slots.iter().map(|slot| slot.key.packed());
    anchors
        .zip(carried)
        .map(|(slot, carried)| carried.map_or(0.0, |(_, weight)| play(slot, weight)))
        .collect()
}

/// Keeps a random share of the distinct images, at least one.
fn budget(share: f32, [seed, step]: [u64; 2], carried: &[Option<(SidedImage, f32)>]) -> Vec<f32> {
    let distinct: BTreeSet<SidedImage> =
        carried.iter().flatten().map(|(image, _)| *image).collect();
    let mut images: Vec<SidedImage> = distinct.into_iter().collect();
    let kept = (share * images.len() as f32).ceil() as usize;
    let factor = images.len() as f32 / kept.max(1) as f32;
    let mut random =
        ChaCha8Rng::seed_from_u64(mix(&[seed, step, u64::from_be_bytes(*b"  budget")]));
    let (chosen, _) = images.partial_shuffle(&mut random, kept);
    let chosen: BTreeSet<SidedImage> = chosen.iter().copied().collect();
    carried
        .iter()
        .map(|carried| match carried {
            Some((image, _)) if chosen.contains(image) => factor,
            _ => 0.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{ObjectiveKind, Scores, batch_layout::DrawnPairs, trial::Trial};
    use kith_mcmc::{ImageKey, PairGraph, PairKey, Recency, Side};

    fn on_anchor_side(image: u32) -> SidedImage {
        SidedImage {
            image: ImageKey(image),
            side: Side::Anchor,
        }
    }

    fn config(estimator: Estimator) -> LearnConfig {
        LearnConfig {
            scores: Scores::Stored,
            carried_budget: 0.4,
            roulette: 0.5,
            ..Trial::new(ObjectiveKind::Emc2, estimator, 4).config
        }
    }

    /// Anchors whose carried negatives have these weights and images.
    fn anchors(carried: &[(f32, u32)]) -> (BatchLayout, Vec<Option<NegativeTerm>>) {
        let pairs: Vec<PairKey> = (0..carried.len().div_ceil(2) as u32).map(PairKey).collect();
        let terms = carried.iter().map(|(weight, image)| {
            let outside = (*weight > 0.0).then_some((on_anchor_side(*image), *weight));
            Some(NegativeTerm {
                outside: outside.into_iter().collect(),
                ..NegativeTerm::default()
            })
        });
        let drawn = DrawnPairs {
            pairs: &pairs,
            recency: Recency::NONE,
        };
        (
            BatchLayout::new(drawn, &PairGraph::default(), None),
            terms.collect(),
        )
    }

    fn mean_weights(config: &LearnConfig, carried: &[(f32, u32)]) -> Vec<f32> {
        let (layout, terms) = anchors(carried);
        let mut sums = vec![0.0; carried.len()];
        for step in 0..20_000 {
            let factors = importance_weights(config, [1, step], &layout, &terms);
            sums.iter_mut()
                .zip(factors)
                .for_each(|(sum, factor)| *sum += factor / 20_000.0);
        }
        sums
    }

    #[test]
    fn the_roulette_always_plays_heavy_ones_and_is_right_on_average() {
        let carried = [(0.9, 1), (0.5, 2), (0.25, 3), (0.05, 3), (0.0, 4)];
        let means = mean_weights(&config(Estimator::Subset), &carried);
        assert!(
            (means[0] - 1.0).abs() < 1e-3 && (means[1] - 1.0).abs() < 1e-3,
            "{means:?}"
        );
        // Four standard errors: √((1 − ρ) / (ρ · 20,000)) with ρ = 1/2 and 1/10.
        assert!(
            (means[2] - 1.0).abs() < 0.03 && (means[3] - 1.0).abs() < 0.085,
            "{means:?}"
        );
        assert_eq!(means[4], 0.0);
    }

    #[test]
    fn the_budget_encodes_its_share_of_the_distinct_images_and_is_right_on_average() {
        let carried = [
            (0.9, 1),
            (0.1, 1),
            (0.25, 2),
            (0.05, 3),
            (0.5, 4),
            (1.0, 5),
            (0.0, 6),
        ];
        let (layout, terms) = anchors(&carried);
        for step in 0..50 {
            let factors = importance_weights(&config(Estimator::Walk), [1, step], &layout, &terms);
            let encoded: HashSet<u32> = carried
                .iter()
                .zip(&factors)
                .filter(|(_, factor)| **factor > 0.0)
                .map(|((_, image), _)| *image)
                .collect();
            assert_eq!(encoded.len(), 2, "two fifths of five images");
            assert_eq!(factors[0], factors[1], "one image, one lot");
        }
        let means = mean_weights(&config(Estimator::Walk), &carried);
        // Four standard errors of a factor 5/2 drawn with probability 2/5.
        assert!(
            means[..6].iter().all(|mean| (mean - 1.0).abs() < 0.035),
            "{means:?}"
        );
        assert_eq!(means[6], 0.0);
    }
}

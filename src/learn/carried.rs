//! Carried negatives: loading views of them, and which of them are worth encoding when their weights are known before.
//! Must never know: embeddings, how a view is made.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{LearnConfig, encoded::View, objective::Term, seating::Seating};
use crate::{
    mcmc::Estimator,
    types::{ImageKey, mix},
};

/// Gives augmented views of stored images: those of carried negatives.
pub trait CarriedViews {
    /// One view (`[side, side, 3]`) of each of `images`; `None` where an image is gone or cannot be read.
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<Vec<f32>>>;
}

/// What `source` has of `images`, and those it has not.
pub(super) fn load(
    source: &dyn CarriedViews,
    step: u64,
    images: &[ImageKey],
) -> (Vec<View>, BTreeSet<ImageKey>) {
    if images.is_empty() {
        return Default::default();
    }
    let views = source.views(step, images);
    debug_assert_eq!(views.len(), images.len());
    let found: Vec<View> = images
        .iter()
        .zip(views)
        .filter_map(|(image, view)| Some((*image, view?)))
        .collect();
    let mut missing: BTreeSet<ImageKey> = images.iter().copied().collect();
    found
        .iter()
        .for_each(|(image, _)| _ = missing.remove(image));
    (found, missing)
}

/// For each anchor the factor on its carried negative's weight; 0 where it is not encoded. The factor's mean over the randomness is 1:
/// the gradient stays unbiased given the weights.
pub(super) fn factors(
    config: &LearnConfig,
    seeds: [u64; 2],
    seating: &Seating,
    terms: &[Option<Term>],
) -> Vec<f32> {
    let weights: Vec<f32> = terms
        .iter()
        .map(|term| term.as_ref().map_or(0.0, |term| term.carried))
        .collect();
    match config.sampler.estimator {
        Estimator::Walk if config.carried_budget < 1.0 => {
            budget(config.carried_budget, seeds, seating, &weights)
        }
        Estimator::Subset if config.roulette > 0.0 => {
            roulette(config.roulette, seeds, seating, &weights)
        }
        _ => weights
            .iter()
            .map(|weight| f32::from(u8::from(*weight > 0.0)))
            .collect(),
    }
}

/// Each with probability min(1, weight / τ), by a coin of its own.
fn roulette(tau: f32, [seed, step]: [u64; 2], seating: &Seating, weights: &[f32]) -> Vec<f32> {
    let play = |(slot, weight): (u32, &f32)| {
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
    seating
        .slots
        .iter()
        .map(|slot| slot.key.packed())
        .zip(weights)
        .map(play)
        .collect()
}

/// A random share of the distinct images, at least one.
fn budget(share: f32, [seed, step]: [u64; 2], seating: &Seating, weights: &[f32]) -> Vec<f32> {
    let needed =
        |(seat, weight): (&super::seating::Seat, &f32)| seat.outside().filter(|_| *weight > 0.0);
    let wanted: Vec<Option<ImageKey>> = seating.seats.iter().zip(weights).map(needed).collect();
    let mut images: Vec<ImageKey> = wanted
        .iter()
        .flatten()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let kept = (share * images.len() as f32).ceil() as usize;
    let factor = images.len() as f32 / kept.max(1) as f32;
    let mut random =
        ChaCha8Rng::seed_from_u64(mix(&[seed, step, u64::from_be_bytes(*b"  budget")]));
    let (chosen, _) = images.partial_shuffle(&mut random, kept);
    let chosen: BTreeSet<ImageKey> = chosen.iter().copied().collect();
    wanted
        .iter()
        .map(|image| {
            if image.is_some_and(|image| chosen.contains(&image)) {
                factor
            } else {
                0.0
            }
        })
        .collect()
}

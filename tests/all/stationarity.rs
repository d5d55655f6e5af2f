//! What visits do in the long run: with scores that do not change, the weights of very many visits add up to the softmax over all
//! candidates. Each bound comes with a control that must miss it, so that the bound is known to mean something.

use kith::{
    mcmc::{BatchSlot, Carried, ChainState, Estimator, Proposals, SamplerConfig, Visit, visit},
    types::{SlotKey, mix},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const PAIRS: usize = 64;
const BATCH: usize = 8;
const VISITS: u64 = 100_000;
const ANCHORS: u64 = 8;

const WALK: SamplerConfig = SamplerConfig {
    estimator: Estimator::Walk,
    burn_in: 0.5,
    proposals: Proposals::OneView,
};
const SUBSET: SamplerConfig = SamplerConfig {
    estimator: Estimator::Subset,
    burn_in: 0.5,
    proposals: Proposals::OneView,
};

/// One anchor (in pair 0) and all slots it may meet.
#[derive(Clone)]
struct World {
    scores: Vec<f32>,
    masked: Vec<bool>,
    /// Slots of one image carry the same number.
    image: Vec<usize>,
}

impl World {
    /// Scores β · N(0, 0.25²), as of a trained encoder; each slot an image of its own.
    fn new(beta: f32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, 1]));
        // The sum of twelve uniforms has variance 1.
        let mut normal = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
        let scores = (0..2 * PAIRS).map(|_| beta * 0.25 * normal()).collect();
        Self {
            scores,
            masked: (0..2 * PAIRS).map(|slot| slot < 2).collect(),
            image: (0..2 * PAIRS).collect(),
        }
    }

    fn degree(&self, slot: usize) -> f32 {
        self.image
            .iter()
            .filter(|image| **image == self.image[slot])
            .count() as f32
    }

    /// The softmax over images.
    fn target(&self) -> Vec<f64> {
        let weight = |slot: usize| {
            f64::from(u8::from(!self.masked[slot])) * f64::from(self.scores[slot]).exp()
        };
        let weights: Vec<f64> = (0..2 * PAIRS)
            .map(|slot| weight(slot) / f64::from(self.degree(slot)))
            .collect();
        self.by_image(&weights)
    }

    fn by_image(&self, weights: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; 2 * PAIRS];
        weights
            .iter()
            .zip(&self.image)
            .for_each(|(weight, image)| sums[*image] += weight);
        let total: f64 = sums.iter().sum();
        sums.iter().map(|sum| sum / total).collect()
    }

    /// Total variation between the target and the weights that `chain` gathers over all visits, each with a batch drawn without
    /// replacement.
    fn distance(&self, chain: &mut impl Chain, seed: u64) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, 2]));
        let degrees: Vec<f32> = (0..2 * PAIRS).map(|slot| self.degree(slot).ln()).collect();
        let mut others: Vec<usize> = (1..PAIRS).collect();
        let mut weights = vec![0.0; 2 * PAIRS];
        for step in 0..VISITS {
            let (drawn, _) = others.partial_shuffle(&mut random, BATCH - 1);
            let slots: Vec<usize> = [0]
                .iter()
                .chain(&*drawn)
                .flat_map(|pair| [2 * pair, 2 * pair + 1])
                .collect();
            chain.visit(
                &Drawn {
                    world: self,
                    degrees: &degrees,
                    slots,
                    seed: mix(&[seed, 3, step]),
                },
                &mut weights,
            );
        }
        let (target, found) = (self.target(), self.by_image(&weights));
        target
            .iter()
            .zip(&found)
            .map(|(p, q)| (p - q).abs())
            .sum::<f64>()
            / 2.0
    }
}

/// A batch of [`BATCH`] pairs, and the seed of the visit.
struct Drawn<'a> {
    world: &'a World,
    /// ln degree of every slot of the world.
    degrees: &'a [f32],
    slots: Vec<usize>,
    seed: u64,
}

trait Chain {
    /// One visit over a batch; adds the weights of what it retains.
    fn visit(&mut self, drawn: &Drawn<'_>, weights: &mut [f64]);
}

/// The room's own sampler, warm-started.
struct Sampler {
    config: SamplerConfig,
    corrected: bool,
    state: Option<ChainState>,
}

impl Chain for Sampler {
    fn visit(&mut self, drawn: &Drawn<'_>, weights: &mut [f64]) {
        let Drawn {
            world,
            degrees,
            slots,
            seed,
        } = drawn;
        let log_degree = |slot: usize| if self.corrected { degrees[slot] } else { 0.0 };
        let key = |slot: usize| SlotKey::from_packed(slot as u32);
        let batch: Vec<_> = slots
            .iter()
            .map(|slot| BatchSlot {
                key: key(*slot),
                log_degree: log_degree(*slot),
            })
            .collect();
        let scores: Vec<_> = slots.iter().map(|slot| world.scores[*slot]).collect();
        let masked: Vec<_> = slots.iter().map(|slot| world.masked[*slot]).collect();
        let carried = self.state.map(|state| Carried {
            state,
            log_degree: log_degree(state.negative.packed() as usize),
            in_batch: batch.iter().position(|slot| slot.key == state.negative),
        });
        let visit_of = Visit {
            anchor: key(0),
            slots: &batch,
            scores: &scores,
            masked: &masked,
            carried,
            step: 0,
            seed: *seed,
        };
        let Some(estimate) = visit(&self.config, &visit_of) else {
            return;
        };
        estimate
            .weights
            .iter()
            .for_each(|(position, weight)| weights[slots[*position]] += f64::from(*weight));
        if let Some(state) = self.state {
            weights[state.negative.packed() as usize] += f64::from(estimate.carried);
        }
        self.state = Some(estimate.next);
    }
}

/// Walks that are wrong in one way each.
struct Wrong {
    always_accepts: bool,
    with_replacement: bool,
    state: Option<usize>,
}

impl Chain for Wrong {
    fn visit(&mut self, drawn: &Drawn<'_>, weights: &mut [f64]) {
        let Drawn {
            world, slots, seed, ..
        } = drawn;
        let mut random = ChaCha8Rng::seed_from_u64(*seed);
        let mut proposals: Vec<usize> = (1..BATCH)
            .map(|pair| slots[2 * pair + random.random_range(0..2)])
            .collect();
        proposals.shuffle(&mut random);
        if self.with_replacement {
            proposals = (0..BATCH - 1)
                .map(|_| slots[random.random_range(2..2 * BATCH)])
                .collect();
        }
        for (made, &proposed) in proposals.iter().enumerate() {
            let current = *self.state.get_or_insert(proposed);
            let accepted =
                random.random::<f32>().ln() < world.scores[proposed] - world.scores[current];
            self.state = Some(if accepted || self.always_accepts {
                proposed
            } else {
                current
            });
            weights[self.state.unwrap_or(proposed)] += f64::from(u8::from(made >= 3));
        }
    }
}

/// Mean over the anchors of the distance, each with scores and batches of its own.
fn mean_distance<C: Chain>(
    world: impl Fn(u64) -> World + Sync,
    chain: impl Fn() -> C + Sync,
) -> f64 {
    let distances: Vec<f64> = (0..ANCHORS)
        .into_par_iter()
        .map(|seed| world(seed).distance(&mut chain(), seed))
        .collect();
    distances.iter().sum::<f64>() / ANCHORS as f64
}

fn sampler(config: &SamplerConfig) -> impl Fn() -> Sampler + Sync {
    || Sampler {
        config: config.clone(),
        corrected: true,
        state: None,
    }
}

fn at(beta: f32) -> impl Fn(u64) -> World + Sync {
    move |seed| World::new(beta, seed)
}

// The bounds: the noise of 10⁵ visits on 126 images (0.004 to 0.01; more where the chain moves seldom), and the walk's own small bias
// from proposing without replacement.

#[test]
fn the_walk_samples_the_softmax() {
    for (beta, bound) in [(1.0, 0.015), (5.0, 0.015), (14.28, 0.03)] {
        let distance = mean_distance(at(beta), sampler(&WALK));
        assert!(distance <= bound, "β = {beta}: {distance}");
    }
}

#[test]
fn the_subset_kernel_samples_the_softmax() {
    for (beta, bound) in [(1.0, 0.01), (5.0, 0.01), (14.28, 0.025)] {
        let distance = mean_distance(at(beta), sampler(&SUBSET));
        assert!(distance <= bound, "β = {beta}: {distance}");
    }
}

#[test]
fn both_views_in_one_walk_miss_it() {
    let both = SamplerConfig {
        proposals: Proposals::BothViews,
        ..WALK
    };
    let distance = mean_distance(at(5.0), sampler(&both));
    assert!(distance > 0.015, "{distance}");
}

#[test]
fn accepting_always_and_proposing_with_replacement_miss_it() {
    for (always_accepts, with_replacement) in [(true, false), (false, true)] {
        let distance = mean_distance(at(5.0), || Wrong {
            always_accepts,
            with_replacement,
            state: None,
        });
        assert!(
            distance > 0.015,
            "{always_accepts} {with_replacement}: {distance}"
        );
    }
    // The same walk without a fault meets it: the controls miss because of their fault.
    let distance = mean_distance(at(5.0), || Wrong {
        always_accepts: false,
        with_replacement: false,
        state: None,
    });
    assert!(distance <= 0.015, "{distance}");
}

/// Every fourth pair's first slot holds one and the same image.
fn uneven(seed: u64) -> World {
    let mut world = World::new(5.0, seed);
    for pair in (4..PAIRS).step_by(4) {
        world.image[2 * pair] = 8;
        world.scores[2 * pair] = world.scores[8];
    }
    world
}

#[test]
fn an_image_of_many_slots_counts_once() {
    for config in [WALK, SUBSET] {
        let distance = mean_distance(uneven, sampler(&config));
        assert!(distance <= 0.015, "{config:?}: {distance}");
        let uncorrected = mean_distance(uneven, || Sampler {
            config: config.clone(),
            corrected: false,
            state: None,
        });
        assert!(uncorrected > 0.03, "{config:?}: {uncorrected}");
    }
}

#[test]
fn a_masked_image_does_not_lend_its_share_to_its_partner() {
    let half_masked = |seed| {
        let mut world = World::new(5.0, seed);
        (1..PAIRS / 2).for_each(|pair| world.masked[2 * pair] = true);
        world
    };
    for config in [WALK, SUBSET] {
        let distance = mean_distance(half_masked, sampler(&config));
        assert!(distance <= 0.015, "{config:?}: {distance}");
    }
}

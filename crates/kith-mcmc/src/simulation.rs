//! Simulates chains over fixed scores and measures how far their weights are from the softmax, for the sampler itself and for walks with
//! one deliberate fault each, which serve as controls.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{BatchSlot, Carried, ChainState, SamplerConfig, Side, SlotKey, Visit, visit};
use kith_seed::mix;

/// One anchor (in pair 0) and all slots it may meet, pairs adjacent.
#[derive(Clone, Debug)]
pub struct World {
    /// `[slots]`: the anchor's score against each slot.
    pub scores: Vec<f32>,
    /// `[slots]`: which slots may not be its negatives.
    pub masked: Vec<bool>,
    /// `[slots]`: the image of each slot, named by one of its slots.
    pub image: Vec<usize>,
    /// `[pairs]`: relative odds of each pair to be drawn.
    pub odds: Vec<f32>,
    /// The anchor's side where pairs are directed: images of that side are masked.
    pub directed: Option<Side>,
}

impl World {
    /// Scores β · N(0, 0.25²), like those of a trained encoder. Each slot holds an image of its own, and all pairs have the same odds.
    pub fn new(pairs: usize, beta: f32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, 1]));
        // The sum of twelve uniforms has variance 1.
        let mut normal = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
        Self {
            scores: (0..2 * pairs).map(|_| beta * 0.25 * normal()).collect(),
            masked: (0..2 * pairs).map(|slot| slot < 2).collect(),
            image: (0..2 * pairs).collect(),
            odds: vec![1.0; pairs],
            directed: None,
        }
    }

    /// The same with directed pairs, for an anchor of `side`.
    pub fn directed(pairs: usize, beta: f32, side: Side, seed: u64) -> Self {
        let mut world = Self::new(pairs, beta, seed);
        let own = world.masked.iter_mut().skip(side.index()).step_by(2);
        own.for_each(|masked| *masked = true);
        world.directed = Some(side);
        world
    }

    fn slots(&self) -> usize {
        self.scores.len()
    }

    fn degree(&self, slot: usize) -> f32 {
        let side = |slot: usize| self.directed.map_or(0, |_| slot % 2);
        let slots = self.image.iter().enumerate();
        let held = slots
            .filter(|(other, image)| **image == self.image[slot] && side(*other) == side(slot));
        held.count() as f32
    }

    /// The chain's target: the softmax over images, as `[slots]` with each image at the index of its name.
    pub fn target(&self) -> Vec<f64> {
        let weight = |slot: usize| {
            if self.masked[slot] {
                0.0
            } else {
                f64::from(self.scores[slot]).exp() / f64::from(self.degree(slot))
            }
        };
        self.by_image(&(0..self.slots()).map(weight).collect::<Vec<_>>())
    }

    fn by_image(&self, weights: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.slots()];
        weights
            .iter()
            .zip(&self.image)
            .for_each(|(weight, image)| sums[*image] += weight);
        let total: f64 = sums.iter().sum();
        sums.iter().map(|sum| sum / total).collect()
    }

    /// Total variation distance between the target and the mean weights of `chain` after each number of visits in `checkpoints`, which
    /// ascend. Each visit has a batch of `batch` pairs: the anchor's own and others drawn without replacement.
    pub fn distances(
        &self,
        chain: &mut dyn Chain,
        batch: usize,
        seed: u64,
        checkpoints: &[u64],
    ) -> Vec<f64> {
        let target = self.target();
        let mut batches = Batches::new(self, batch, seed);
        let mut weights = vec![0.0; self.slots()];
        let mut visits = 0;
        let mut distance_at = |until: &u64| {
            for step in visits..*until {
                chain.visit(&batches.draw(step), &mut weights);
            }
            visits = *until;
            let found = self.by_image(&weights);
            let differences = target.iter().zip(&found).map(|(p, q)| (p - q).abs());
            differences.sum::<f64>() / 2.0
        };
        checkpoints.iter().map(&mut distance_at).collect()
    }

    /// Visits `chain` `visits` times, with batches as in [`World::distances`], and calls `observe` with the `[slots]` weights of each visit.
    pub fn each_visit(
        &self,
        chain: &mut dyn Chain,
        (batch, seed): (usize, u64),
        visits: u64,
        mut observe: impl FnMut(&[f64]),
    ) {
        let mut batches = Batches::new(self, batch, seed);
        let mut weights = vec![0.0; self.slots()];
        for step in 0..visits {
            weights.fill(0.0);
            chain.visit(&batches.draw(step), &mut weights);
            observe(&weights);
        }
    }
}

/// The batches that one anchor meets.
struct Batches<'a> {
    world: &'a World,
    /// `[slots]`: ln degree and ln odds of each slot, the corrections of its log score.
    corrections: Vec<[f32; 2]>,
    others: Vec<usize>,
    size: usize,
    seed: u64,
    random: ChaCha8Rng,
}

impl<'a> Batches<'a> {
    fn new(world: &'a World, size: usize, seed: u64) -> Self {
        let slots = 0..world.slots();
        Self {
            world,
            corrections: slots
                .map(|slot| [world.degree(slot).ln(), world.odds[slot / 2].ln()])
                .collect(),
            others: (1..world.slots() / 2).collect(),
            size,
            seed,
            random: ChaCha8Rng::seed_from_u64(mix(&[seed, 2])),
        }
    }

    /// Draws a batch; a set of pairs has a probability proportional to the product of its odds.
    fn draw(&mut self, step: u64) -> DrawnBatch<'_> {
        let odds = &self.world.odds;
        let largest = odds.iter().copied().fold(0.0, f32::max);
        let size = self.size.saturating_sub(1);
        let drawn = loop {
            let (drawn, _) = self.others.partial_shuffle(&mut self.random, size);
            let drawn = drawn.to_vec();
            let mut shares = drawn.iter().map(|pair| odds[*pair] / largest);
            if shares.all(|share| share >= 1.0 || self.random.random::<f32>() < share) {
                break drawn;
            }
        };
        let pairs = std::iter::once(0).chain(drawn);
        DrawnBatch {
            world: self.world,
            corrections: &self.corrections,
            slots: pairs.flat_map(|pair| [2 * pair, 2 * pair + 1]).collect(),
            seed: mix(&[self.seed, 3, step]),
        }
    }
}

/// A batch and the seed of its visit.
#[derive(Debug)]
pub struct DrawnBatch<'a> {
    /// The world it was drawn from.
    pub world: &'a World,
    corrections: &'a [[f32; 2]],
    /// The batch's slots, the anchor's pair first.
    pub slots: Vec<usize>,
    /// Seed of the visit.
    pub seed: u64,
}

/// A chain to simulate.
pub trait Chain {
    /// One visit over a batch; adds the weights of the visit's negatives to `weights`, `[slots]`.
    fn visit(&mut self, drawn: &DrawnBatch<'_>, weights: &mut [f64]);
}

/// The sampler of this crate, [`visit`], warm-started.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    corrected: bool,
    /// The chain's state.
    pub state: Option<ChainState>,
}

impl Sampler {
    /// The sampler as it is used.
    pub fn new(config: SamplerConfig) -> Self {
        Self {
            config,
            corrected: true,
            state: None,
        }
    }

    /// The sampler without the correction by degree and odds.
    pub fn uncorrected(config: SamplerConfig) -> Self {
        Self {
            corrected: false,
            ..Self::new(config)
        }
    }
}

impl Chain for Sampler {
    fn visit(&mut self, drawn: &DrawnBatch<'_>, weights: &mut [f64]) {
        let DrawnBatch {
            world,
            corrections,
            slots,
            seed,
        } = drawn;
        let correction = |slot: usize| {
            if self.corrected {
                corrections[slot]
            } else {
                [0.0; 2]
            }
        };
        let key = |slot: usize| SlotKey::from_packed(slot as u32);
        let batch: Vec<_> = slots
            .iter()
            .map(|slot| {
                let [log_degree, log_odds] = correction(*slot);
                BatchSlot {
                    key: key(*slot),
                    log_degree,
                    log_odds,
                }
            })
            .collect();
        let scores: Vec<_> = slots.iter().map(|slot| world.scores[*slot]).collect();
        let masked: Vec<_> = slots.iter().map(|slot| world.masked[*slot]).collect();
        let carried = self.state.map(|state| {
            let [log_degree, log_odds] = correction(state.negative.packed() as usize);
            Carried {
                state,
                log_degree,
                log_odds,
                in_batch: batch.iter().position(|slot| slot.key == state.negative),
            }
        });
        let visit_of = Visit {
            anchor: key(world.directed.map_or(0, Side::index)),
            slots: &batch,
            directed: world.directed.is_some(),
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

/// A textbook walk with two optional faults.
#[derive(Clone, Debug, Default)]
pub struct PlainWalk {
    /// Every proposal is accepted.
    pub always_accepts: bool,
    /// Proposals are drawn from the batch with replacement, both images of a pair among them.
    pub with_replacement: bool,
    state: Option<usize>,
}

impl PlainWalk {
    /// A walk with the given faults.
    pub fn new(always_accepts: bool, with_replacement: bool) -> Self {
        Self {
            always_accepts,
            with_replacement,
            state: None,
        }
    }

    fn proposals(&self, slots: &[usize], random: &mut ChaCha8Rng) -> Vec<usize> {
        let others = slots.len() / 2 - 1;
        if self.with_replacement {
            let mut any = || slots[random.random_range(2..slots.len())];
            return (0..others).map(|_| any()).collect();
        }
        let mut one_of = |pair: usize| slots[2 * pair + random.random_range(0..2)];
        let mut proposals: Vec<usize> = (1..=others).map(&mut one_of).collect();
        proposals.shuffle(random);
        proposals
    }
}

impl Chain for PlainWalk {
    fn visit(&mut self, drawn: &DrawnBatch<'_>, weights: &mut [f64]) {
        let DrawnBatch {
            world, slots, seed, ..
        } = drawn;
        let mut random = ChaCha8Rng::seed_from_u64(*seed);
        let proposals = self.proposals(slots, &mut random);
        let burned = proposals.len() / 2;
        for (made, &proposed) in proposals.iter().enumerate() {
            let current = *self.state.get_or_insert(proposed);
            let accepted =
                random.random::<f32>().ln() < world.scores[proposed] - world.scores[current];
            let next = if accepted || self.always_accepts {
                proposed
            } else {
                current
            };
            self.state = Some(next);
            weights[next] += f64::from(u8::from(made >= burned));
        }
    }
}

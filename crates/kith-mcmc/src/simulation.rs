//! Chains over scores that do not change: how far what they gather is from the softmax. Holds the sampler as it is and walks that are
//! wrong in one way each, which must be farther off. Must never know: encoders, images.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{BatchSlot, Carried, ChainState, SamplerConfig, SlotKey, Visit, visit};
use kith_seed::mix;

/// One anchor (in pair 0) and all slots it may meet, pairs adjacent.
#[derive(Clone, Debug)]
pub struct World {
    /// Its score against each slot.
    pub scores: Vec<f32>,
    /// Which slots may not be its negatives.
    pub masked: Vec<bool>,
    /// Slots of one image carry the same number, that of one of them.
    pub image: Vec<usize>,
    /// How much more often than others each pair is drawn.
    pub odds: Vec<f32>,
}

impl World {
    /// Scores β · N(0, 0.25²), as of a trained encoder; each slot an image of its own.
    pub fn new(pairs: usize, beta: f32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, 1]));
        // The sum of twelve uniforms has variance 1.
        let mut normal = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
        Self {
            scores: (0..2 * pairs).map(|_| beta * 0.25 * normal()).collect(),
            masked: (0..2 * pairs).map(|slot| slot < 2).collect(),
            image: (0..2 * pairs).collect(),
            odds: vec![1.0; pairs],
        }
    }

    fn slots(&self) -> usize {
        self.scores.len()
    }

    fn degree(&self, slot: usize) -> f32 {
        let holds = |image: &&usize| **image == self.image[slot];
        self.image.iter().filter(holds).count() as f32
    }

    /// The softmax over images.
    pub fn target(&self) -> Vec<f64> {
        let weight = |slot: usize| match self.masked[slot] {
            true => 0.0,
            false => f64::from(self.scores[slot]).exp() / f64::from(self.degree(slot)),
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

    /// Total variation between the softmax and the weights that `chain` has gathered after each number of visits in `looks`, ascending.
    /// Each visit has a batch of `batch` pairs, the anchor's own and others drawn without replacement.
    pub fn distances(
        &self,
        chain: &mut dyn Chain,
        batch: usize,
        seed: u64,
        looks: &[u64],
    ) -> Vec<f64> {
        let target = self.target();
        let mut batches = Batches::new(self, batch, seed);
        let mut weights = vec![0.0; self.slots()];
        let mut visits = 0;
        let mut look = |until: &u64| {
            for step in visits..*until {
                chain.visit(&batches.draw(step), &mut weights);
            }
            visits = *until;
            let found = self.by_image(&weights);
            let differences = target.iter().zip(&found).map(|(p, q)| (p - q).abs());
            differences.sum::<f64>() / 2.0
        };
        looks.iter().map(&mut look).collect()
    }

    /// The weights of each of `visits` visits to `chain`, with batches as in [`World::distances`], shown to `look` one after the other.
    pub fn each_visit(
        &self,
        chain: &mut dyn Chain,
        (batch, seed): (usize, u64),
        visits: u64,
        mut look: impl FnMut(&[f64]),
    ) {
        let mut batches = Batches::new(self, batch, seed);
        let mut weights = vec![0.0; self.slots()];
        for step in 0..visits {
            weights.fill(0.0);
            chain.visit(&batches.draw(step), &mut weights);
            look(&weights);
        }
    }
}

/// The batches that one anchor meets.
struct Batches<'a> {
    world: &'a World,
    /// For every slot of the world ln of how often its image is proposed for each time that it counts in the target.
    degrees: Vec<f32>,
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
            degrees: slots
                .map(|slot| world.degree(slot).ln() + world.odds[slot / 2].ln())
                .collect(),
            others: (1..world.slots() / 2).collect(),
            size,
            seed,
            random: ChaCha8Rng::seed_from_u64(mix(&[seed, 2])),
        }
    }

    /// Sets of pairs come with probability proportional to the product of their odds.
    fn draw(&mut self, step: u64) -> Drawn<'_> {
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
        Drawn {
            world: self.world,
            degrees: &self.degrees,
            slots: pairs.flat_map(|pair| [2 * pair, 2 * pair + 1]).collect(),
            seed: mix(&[self.seed, 3, step]),
        }
    }
}

/// A batch, and the seed of the visit.
#[derive(Debug)]
pub struct Drawn<'a> {
    /// What it was drawn from.
    pub world: &'a World,
    degrees: &'a [f32],
    /// Its slots, the anchor's pair first.
    pub slots: Vec<usize>,
    /// Randomness of the visit.
    pub seed: u64,
}

/// What is visited.
pub trait Chain {
    /// One visit over a batch; adds the weights of what it retains.
    fn visit(&mut self, drawn: &Drawn<'_>, weights: &mut [f64]);
}

/// kith's own sampler, warm-started.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    corrected: bool,
    /// Where its chain stands.
    pub state: Option<ChainState>,
}

impl Sampler {
    /// As it is used.
    pub fn new(config: SamplerConfig) -> Self {
        Self {
            config,
            corrected: true,
            state: None,
        }
    }

    /// Without the correction for what is proposed more often than it counts.
    pub fn uncorrected(config: SamplerConfig) -> Self {
        Self {
            corrected: false,
            ..Self::new(config)
        }
    }
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

/// A plain walk, which can be made wrong in two ways.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    /// Every proposal is accepted.
    pub always_accepts: bool,
    /// Proposals are drawn from the batch with replacement, both images of a pair among them.
    pub with_replacement: bool,
    state: Option<usize>,
}

impl Plain {
    /// A walk with these faults, if any.
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

impl Chain for Plain {
    fn visit(&mut self, drawn: &Drawn<'_>, weights: &mut [f64]) {
        let Drawn {
            world, slots, seed, ..
        } = drawn;
        let mut random = ChaCha8Rng::seed_from_u64(*seed);
        let proposals = self.proposals(slots, &mut random);
        let burned = proposals.len() / 2;
        for (made, &proposed) in proposals.iter().enumerate() {
            let current = *self.state.get_or_insert(proposed);
            let accepted =
                random.random::<f32>().ln() < world.scores[proposed] - world.scores[current];
            let next = match accepted || self.always_accepts {
                true => proposed,
                false => current,
            };
            self.state = Some(next);
            weights[next] += f64::from(u8::from(made >= burned));
        }
    }
}

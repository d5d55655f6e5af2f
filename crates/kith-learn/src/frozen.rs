//! Test fixture: steps on frozen embeddings and their exact gradient, to test estimators without an encoder. Gradients are taken with
//! respect to the images' embeddings.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    LearnConfig, ObjectiveKind, Scores,
    batch_layout::BatchLayout,
    embedding_cache::{CacheLimits, EmbeddingCache, FreshEmbeddings},
    encoded::Encoded,
    forward::Forward,
    loss::{Cosines, dot},
    objective::Objective,
    objectives::objective,
};
use kith_mcmc::{
    ChainTable, Estimator, GroupKey, ImageKey, PairEntry, PairGraph, PairKey, Proposals,
    SamplerConfig, SlotKey,
};

pub(super) const PAIRS: u32 = 64;
pub(super) const DIM: usize = 8;
pub(super) const BETA: f32 = 5.0;
const SEED: u64 = 11;
const CACHE: CacheLimits = CacheLimits {
    max_images: 1000,
    refresh: 1.0,
};

/// Frozen vectors of images, and the pairs over them.
pub(super) struct World {
    pub(super) graph: PairGraph,
    pub(super) vectors: Vec<f32>,
    /// Of each slot as an anchor, the gradient of its term of the global loss.
    exact: Vec<Vec<f64>>,
}

/// A deliberate fault of the steps, as a control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    None,
    /// Carried negatives weigh nothing.
    DropsCarried,
    /// The walk's sum is divided by its proposals, not by what it retained.
    DividesByProposals,
    /// Every chain starts anew at each visit.
    Cold,
}

/// Bias and variance of many steps, in units of ‖∇L‖.
#[derive(Debug)]
pub(super) struct Outcome {
    /// ‖mean of (estimate − exact gradient of the same anchors)‖.
    pub(super) bias: f64,
    /// Mean of ‖estimate − exact gradient of the same anchors‖².
    pub(super) variance: f64,
}

impl World {
    /// Most images belong to one pair, image 0 to thirteen; two pairs share a group; one pair is two views of one image.
    pub(super) fn new() -> Self {
        let mut graph = PairGraph::default();
        for pair in 0..PAIRS {
            let anchor = if pair % 5 == 0 { 0 } else { 2 * pair };
            let positive = if pair == 7 { anchor } else { 2 * pair + 1 };
            let group = [3, 4].contains(&pair).then_some(GroupKey(1));
            let images = [ImageKey(anchor), ImageKey(positive)];
            graph.insert(PairKey(pair), PairEntry { images, group });
        }
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut vectors: Vec<f32> = (0..2 * PAIRS as usize * DIM)
            .map(|_| random.random_range(-1.0..1.0))
            .collect();
        for row in vectors.chunks_exact_mut(DIM) {
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|value| *value /= length);
        }
        let mut world = Self {
            graph,
            vectors,
            exact: Vec::new(),
        };
        world.exact = (0..2 * PAIRS)
            .map(|anchor| world.of_anchor(anchor))
            .collect();
        world
    }

    pub(super) fn image(&self, slot: u32) -> usize {
        self.graph
            .image(SlotKey::from_packed(slot))
            .expect("all pairs are there")
            .0 as usize
    }

    fn vector(&self, image: usize) -> &[f32] {
        &self.vectors[image * DIM..(image + 1) * DIM]
    }

    /// By the definition: each image once, known positives left out.
    fn of_anchor(&self, anchor: u32) -> Vec<f64> {
        let positives = self.graph.positives(SlotKey::from_packed(anchor));
        let mut negatives: Vec<usize> = (0..2 * PAIRS)
            .filter(|slot| !positives.excludes(SlotKey::from_packed(*slot)))
            .map(|slot| self.image(slot))
            .collect();
        negatives.sort_unstable();
        negatives.dedup();
        let own = self.image(anchor);
        let weight = |image: usize| (BETA * dot(self.vector(own), self.vector(image))).exp();
        let total: f32 = negatives.iter().map(|image| weight(*image)).sum();
        let images = self.vectors.len() / DIM;
        let loss = Cosines::new(images, images, |row, line| {
            if row == own {
                line[self.image(anchor ^ 1)] -= BETA;
                for image in &negatives {
                    line[*image] += BETA * weight(*image) / total;
                }
            }
        });
        let (_, gradient) = loss.value_and_grad(DIM, &self.vectors);
        gradient.into_iter().map(f64::from).collect()
    }

    fn mean_of(&self, slots: impl Iterator<Item = u32> + Clone) -> Vec<f64> {
        let count = slots.clone().count() as f64;
        let mut mean = vec![0.0; self.vectors.len()];
        for slot in slots {
            let exact = &self.exact[slot as usize];
            mean.iter_mut()
                .zip(exact)
                .for_each(|(mean, value)| *mean += value / count);
        }
        mean
    }

    /// Everything before the gradient of a step over `pairs`.
    fn forward(
        &self,
        objective: &dyn Objective,
        step: u64,
        pairs: &[u32],
    ) -> (Forward, Vec<usize>) {
        let keys: Vec<PairKey> = pairs.iter().map(|pair| PairKey(*pair)).collect();
        let layout = BatchLayout::new(&keys, &self.graph, objective.chains());
        let mut outside = objective
            .extra_images(&layout, &self.graph)
            .expect("the set is small")
            .images;
        outside.extend(layout.images_outside());
        outside.sort_unstable();
        outside.dedup();
        let slots = pairs
            .iter()
            .flat_map(|pair| [2 * pair, 2 * pair + 1])
            .map(|slot| self.image(slot));
        let images: Vec<usize> = slots
            .chain(outside.iter().map(|image| image.0 as usize))
            .collect();
        let rows: Vec<f32> = images
            .iter()
            .flat_map(|image| self.vector(*image))
            .copied()
            .collect();
        let carried: BTreeMap<ImageKey, usize> =
            outside.into_iter().zip(2 * pairs.len()..).collect();
        let mut forward = Forward::new(layout, BETA, step);
        forward.embeddings.with_grad = Encoded::from_rows(DIM, rows, carried);
        forward.refresh();
        forward.visit_all(objective, &self.graph, SEED);
        (forward, images)
    }

    /// The gradient of one step over `pairs`, after which the chains have moved.
    pub(super) fn step(
        &self,
        trial: &Trial,
        memory: &mut Memory,
        step: u64,
        pairs: &[u32],
    ) -> Vec<f64> {
        let objective = objective(&trial.config, &memory.table, &memory.cache);
        let (mut forward, images) = self.forward(&*objective, step, pairs);
        trial.fault.spoil(&mut forward);
        let mut sum = vec![0.0; self.vectors.len()];
        let rows = &forward.embeddings.with_grad.embedding;
        let (_, gradient) = forward.cosines().value_and_grad(DIM, rows);
        for (image, row) in images.iter().zip(gradient.chunks_exact(DIM)) {
            sum[image * DIM..(image + 1) * DIM]
                .iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let (states, fresh) = (forward.next_states(), forward.fresh());
        drop(objective);
        if trial.fault != Fault::Cold {
            for (anchor, state) in states {
                memory.table.put(anchor, state);
            }
        }
        if trial.config.objective == ObjectiveKind::NegativeCache {
            memory.cache.update(step, fresh, &self.graph, CACHE);
        }
        sum
    }

    /// Steps in epochs without replacement, after as many again (at most 20 epochs) that only burn the chains in.
    pub(super) fn run(&self, trial: &Trial, steps: u64) -> Outcome {
        // Steps this small gain nothing from threads.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a pool of one");
        pool.install(|| self.run_here(trial, steps))
    }

    fn run_here(&self, trial: &Trial, steps: u64) -> Outcome {
        let mut memory = Memory::new(trial, &self.graph);
        let whole = self.mean_of(0..2 * PAIRS);
        let norm = norm_of(&whole);
        let burning = steps.min(20 * u64::from(PAIRS) / trial.batch as u64);
        let mut random = ChaCha8Rng::seed_from_u64(trial.seed);
        let mut order: Vec<u32> = (0..PAIRS).collect();
        let mut sum = vec![0.0; self.vectors.len()];
        let (mut step, mut variance) = (0, 0.0);
        while step < burning + steps {
            order.shuffle(&mut random);
            for pairs in order.chunks_exact(trial.batch) {
                let mut error = self.step(trial, &mut memory, step, pairs);
                let anchors = pairs.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]);
                error
                    .iter_mut()
                    .zip(self.mean_of(anchors))
                    .for_each(|(error, exact)| *error -= exact);
                if (burning..burning + steps).contains(&step) {
                    variance += (norm_of(&error) / norm).powi(2) / steps as f64;
                    sum.iter_mut()
                        .zip(error)
                        .for_each(|(sum, error)| *sum += error / steps as f64);
                }
                step += 1;
            }
        }
        Outcome {
            bias: norm_of(&sum) / norm,
            variance,
        }
    }
}

/// The state that steps leave for later ones.
pub(super) struct Memory {
    pub(super) table: ChainTable,
    cache: EmbeddingCache,
}

impl Memory {
    pub(super) fn new(trial: &Trial, graph: &PairGraph) -> Self {
        let mut cache = EmbeddingCache::default();
        cache.update(0, FreshEmbeddings::default(), graph, CACHE);
        Self {
            table: ChainTable::new(trial.config.objective.states().unwrap_or_default()),
            cache,
        }
    }
}

fn norm_of(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

impl Fault {
    fn spoil(self, forward: &mut Forward) {
        match self {
            Self::None | Self::Cold => {}
            Self::DropsCarried => forward.importance_weights.fill(0.0),
            Self::DividesByProposals => {
                for term in forward.terms.iter_mut().flatten() {
                    // Burn-in 0.5: of n proposals n − ⌊n/2⌋ are retained.
                    let (made, retained) = (term.proposals, term.proposals.div_ceil(2));
                    let share = retained as f32 / made.max(1) as f32;
                    term.weights
                        .iter_mut()
                        .for_each(|(_, weight)| *weight *= share);
                    term.outside
                        .iter_mut()
                        .for_each(|(_, weight)| *weight *= share);
                }
            }
        }
    }
}

/// The settings of a series of steps.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) config: LearnConfig,
    pub(super) batch: usize,
    pub(super) fault: Fault,
    pub(super) seed: u64,
}

impl Trial {
    pub(super) fn new(objective: ObjectiveKind, estimator: Estimator, batch: usize) -> Self {
        let sampler = SamplerConfig {
            estimator,
            burn_in: 0.5,
            proposals: Proposals::OneView,
        };
        Self {
            config: LearnConfig {
                beta: BETA,
                objective,
                sampler,
                scores: Scores::Refreshed,
                carried_budget: 1.0,
                roulette: 0.0,
                sogclr_gamma: 0.9,
                cache_images: 1000,
                cache_refresh: 1.0,
                exact_images: 1000,
            },
            batch,
            fault: Fault::None,
            seed: 7,
        }
    }

    pub(super) fn with(&self, fault: Fault) -> Self {
        Self {
            fault,
            ..self.clone()
        }
    }
}

//! Test fixture: steps on frozen embeddings and their exact gradient, to test estimators without an encoder. Gradients are taken with
//! respect to the images' embeddings.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    ObjectiveKind, Prototypes,
    batch_layout::{BatchLayout, DrawnPairs},
    embedding_cache::{CacheLimits, EmbeddingCache, FreshEmbeddings},
    encoded::Encoded,
    forward::Forward,
    loss::{Cosines, dot},
    objective::Objective,
    objectives::objective,
    softmax::log_mean_exp,
    trial::{BETA, Fault, Trial},
};
use kith_mcmc::{
    ChainTable, Estimator, GroupKey, ImageKey, PairEntry, PairGraph, PairKey, PairWeight, Recency,
    Side, SidedImage, SlotKey,
};

pub(super) const PAIRS: u32 = 64;
pub(super) const DIM: usize = 8;
const SEED: u64 = 11;
const CACHE: CacheLimits = CacheLimits {
    max_images: 1000,
    refresh: 1.0,
};

/// Frozen vectors of images, and the pairs over them.
pub(super) struct World {
    pub(super) graph: PairGraph,
    pub(super) vectors: Vec<f32>,
    /// How much more often recent pairs are drawn.
    recency: Recency,
    /// Of each slot as an anchor, the gradient of its term of the global loss.
    exact: Vec<Vec<f64>>,
}

/// Bias and variance of many steps, in units of ‖∇L‖.
#[derive(Debug)]
pub(super) struct Outcome {
    /// ‖mean of (estimate − exact gradient of the same anchors)‖.
    pub(super) bias: f64,
    /// ‖mean of the exact gradients of the anchors drawn − ∇L‖.
    pub(super) draw_bias: f64,
    /// Mean of ‖estimate − exact gradient of the same anchors‖².
    pub(super) variance: f64,
}

impl World {
    /// Most images belong to one pair, image 0 to thirteen; two pairs share a group; one pair is two views of one image.
    pub(super) fn new() -> Self {
        Self::of(PairGraph::default(), |_| PairWeight::ONE)
    }

    /// The same with directed pairs: an image has a vector for each side.
    pub(super) fn directed() -> Self {
        Self::of(PairGraph::directed(), |_| PairWeight::ONE)
    }

    /// The same with weights of the pairs.
    pub(super) fn weighted(weight: impl Fn(u32) -> PairWeight) -> Self {
        Self::of(PairGraph::default(), weight)
    }

    /// The same where recent pairs are drawn more often.
    pub(super) fn with_recent(self, recency: Recency) -> Self {
        Self { recency, ..self }
    }

    fn of(mut graph: PairGraph, weight: impl Fn(u32) -> PairWeight) -> Self {
        for pair in 0..PAIRS {
            let anchor = if pair % 5 == 0 { 0 } else { 2 * pair };
            let positive = if pair == 7 { anchor } else { 2 * pair + 1 };
            let group = [3, 4].contains(&pair).then_some(GroupKey(1));
            let images = [ImageKey(anchor), ImageKey(positive)];
            let entry = PairEntry {
                images,
                group,
                weight: weight(pair),
            };
            graph.insert(PairKey(pair), entry);
        }
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut vectors: Vec<f32> = (0..4 * PAIRS as usize * DIM)
            .map(|_| random.random_range(-1.0..1.0))
            .collect();
        for row in vectors.chunks_exact_mut(DIM) {
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|value| *value /= length);
        }
        let mut world = Self {
            graph,
            vectors,
            recency: Recency::NONE,
            exact: Vec::new(),
        };
        world.exact = (0..2 * PAIRS)
            .map(|anchor| world.of_anchor(anchor))
            .collect();
        world
    }

    /// The row of the slot's image among the vectors.
    pub(super) fn image(&self, slot: u32) -> usize {
        let image = self.graph.sided_image(SlotKey::from_packed(slot));
        row_of(image.expect("all pairs are there"))
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

    /// ln of the mean of exp(score) / degree over the slots that may be the anchor's negatives: what a normaliser should be.
    pub(super) fn log_normalizer(&self, anchor: u32) -> f64 {
        let positives = self.graph.positives(SlotKey::from_packed(anchor));
        let score = |slot: u32| {
            let key = SlotKey::from_packed(slot);
            let image = self.graph.sided_image(key).expect("all pairs are there");
            let cosine = dot(self.vector(self.image(anchor)), self.vector(row_of(image)));
            f64::from(BETA * cosine - self.graph.log_degree(image))
        };
        let scores: Vec<f64> = (0..2 * PAIRS)
            .filter(|slot| !positives.excludes(SlotKey::from_packed(*slot)))
            .map(score)
            .collect();
        log_mean_exp(&scores).expect("there are negatives")
    }

    fn weight(&self, pair: u32) -> PairWeight {
        let entry = self.graph.get(PairKey(pair));
        entry.expect("all pairs are there").weight
    }

    /// The odds of a recent pair are 1, if it is no light one, and those of all others are smaller by a factor.
    fn odds(&self, pair: u32) -> f64 {
        let slot = SlotKey::new(PairKey(pair), Side::Anchor);
        f64::from(self.recency.of(slot) - self.recency.log_odds).exp()
    }

    /// ∇L: a pair counts by its weight, and by how often it is drawn for being recent.
    fn whole(&self) -> Vec<f64> {
        let weight = |slot: u32| self.weight(slot / 2).value() * self.odds(slot / 2);
        let total: f64 = (0..2 * PAIRS).map(weight).sum();
        self.sum_of(0..2 * PAIRS, |slot| weight(slot) / total)
    }

    /// The exact gradient of a step whose anchors are those of `pairs`.
    fn of_pairs(&self, pairs: &[u32]) -> Vec<f64> {
        let draws = self.graph.draws();
        let anchors = pairs.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]);
        let share = |slot: u32| f64::from(draws.loss_factor(self.weight(slot / 2)));
        let count = 2.0 * pairs.len() as f64;
        self.sum_of(anchors, |slot| share(slot) / count)
    }

    fn sum_of(&self, slots: impl Iterator<Item = u32>, factor: impl Fn(u32) -> f64) -> Vec<f64> {
        let mut sum = vec![0.0; self.vectors.len()];
        for slot in slots {
            let exact = &self.exact[slot as usize];
            let factor = factor(slot);
            sum.iter_mut()
                .zip(exact)
                .for_each(|(sum, value)| *sum += factor * value);
        }
        sum
    }

    /// The pairs of one epoch; shuffles `order`, all pairs.
    fn epoch(&self, order: &mut [u32], random: &mut ChaCha8Rng) -> Vec<u32> {
        order.shuffle(random);
        let share = |pair: &u32| self.graph.draw_share().of(self.weight(*pair)) * self.odds(*pair);
        let drawn = order.iter().copied();
        drawn
            .filter(|pair| share(pair) >= 1.0 || random.random_bool(share(pair)))
            .collect()
    }

    /// Everything before the gradient of a step over `pairs`.
    fn forward(
        &self,
        (objective, fault): (&dyn Objective, Fault),
        step: u64,
        pairs: &[u32],
    ) -> (Forward, Vec<usize>) {
        let keys: Vec<PairKey> = pairs.iter().map(|pair| PairKey(*pair)).collect();
        let drawn = DrawnPairs {
            pairs: &keys,
            recency: self.recency,
        };
        let mut layout = BatchLayout::new(drawn, &self.graph, objective.chains());
        fault.spoil_layout(&mut layout);
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
        let images: Vec<usize> = slots.chain(outside.iter().copied().map(row_of)).collect();
        let rows: Vec<f32> = images
            .iter()
            .flat_map(|image| self.vector(*image))
            .copied()
            .collect();
        let carried: BTreeMap<SidedImage, usize> =
            outside.into_iter().zip(2 * pairs.len()..).collect();
        let mut forward = Forward::new(layout, BETA, step);
        forward.embeddings.with_grad = Encoded::from_rows(DIM, rows, carried);
        forward.refresh();
        forward.visit_all(objective, &self.graph, SEED);
        (forward, images)
    }

    /// A step over `pairs` whose scores are known.
    pub(super) fn scored(&self, pairs: &[u32]) -> Forward {
        let trial = Trial::new(ObjectiveKind::InfoNce, Estimator::Subset, pairs.len());
        let memory = Memory::new(&trial, &self.graph);
        let others = (&memory.cache, &memory.prototypes);
        let objective = objective(&trial.config, &memory.table, others);
        self.forward((&*objective, Fault::None), 0, pairs).0
    }

    /// The gradient of one step over `pairs`, after which the chains have moved.
    pub(super) fn step(
        &self,
        trial: &Trial,
        memory: &mut Memory,
        step: u64,
        pairs: &[u32],
    ) -> Vec<f64> {
        let objective = objective(
            &trial.config,
            &memory.table,
            (&memory.cache, &memory.prototypes),
        );
        let (mut forward, images) = self.forward((&*objective, trial.fault), step, pairs);
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
        if let Some(prototypes) = forward.prototypes {
            memory.prototypes = prototypes;
        }
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
        let whole = self.whole();
        let norm = norm_of(&whole);
        let burning = steps.min(20 * u64::from(PAIRS) / trial.batch as u64);
        let mut random = ChaCha8Rng::seed_from_u64(trial.seed);
        let mut order: Vec<u32> = (0..PAIRS).collect();
        let mut sum = vec![0.0; self.vectors.len()];
        let mut drawn = whole.iter().map(|value| -value).collect::<Vec<f64>>();
        let (mut step, mut variance) = (0, 0.0);
        while step < burning + steps {
            for pairs in self
                .epoch(&mut order, &mut random)
                .chunks_exact(trial.batch)
            {
                let mut error = self.step(trial, &mut memory, step, pairs);
                let exact = self.of_pairs(pairs);
                error
                    .iter_mut()
                    .zip(&exact)
                    .for_each(|(error, exact)| *error -= exact);
                if (burning..burning + steps).contains(&step) {
                    variance += (norm_of(&error) / norm).powi(2) / steps as f64;
                    sum.iter_mut()
                        .zip(error)
                        .for_each(|(sum, error)| *sum += error / steps as f64);
                    drawn
                        .iter_mut()
                        .zip(exact)
                        .for_each(|(sum, exact)| *sum += exact / steps as f64);
                }
                step += 1;
            }
        }
        Outcome {
            bias: norm_of(&sum) / norm,
            draw_bias: norm_of(&drawn) / norm,
            variance,
        }
    }
}

/// The state that steps leave for later ones.
pub(super) struct Memory {
    pub(super) table: ChainTable,
    pub(super) prototypes: Prototypes,
    cache: EmbeddingCache,
}

impl Memory {
    pub(super) fn new(trial: &Trial, graph: &PairGraph) -> Self {
        let mut cache = EmbeddingCache::default();
        cache.update(0, FreshEmbeddings::default(), graph, CACHE);
        Self {
            table: ChainTable::new(trial.config.objective.states().unwrap_or_default()),
            prototypes: Prototypes::default(),
            cache,
        }
    }
}

/// The row of an image among the vectors: those of the anchor's side, then those of the positive's.
fn row_of(image: SidedImage) -> usize {
    image.image.0 as usize + 2 * PAIRS as usize * image.side.index()
}

fn norm_of(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

//! The step's gradient against the exact one, on embeddings that do not change: the mean over many steps is ∇L for EMC², at any batch
//! size, and something else for InfoNCE. No encoder: gradients are taken with respect to the images' vectors.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    LearnConfig, ObjectiveKind, Scores, embedding_cache::EmbeddingCache, encoded::Encoded,
    forward::Forward, loss::Cosines, loss::dot, objective::objective, seating::Seating,
};
use crate::{
    mcmc::{ChainTable, Estimator, PairEntry, PairGraph, Proposals, SamplerConfig},
    types::{GroupKey, ImageKey, PairKey, SlotKey},
};

const PAIRS: u32 = 24;
const DIM: usize = 8;
const BETA: f32 = 5.0;

/// Frozen vectors of images, and the pairs over them.
struct World {
    graph: PairGraph,
    vectors: Vec<f32>,
}

impl World {
    /// Most images stand in one pair, image 0 in five; two pairs share a group; one pair is two views of a single image.
    fn new() -> Self {
        let mut graph = PairGraph::default();
        for pair in 0..PAIRS {
            let anchor = if pair % 5 == 0 { 0 } else { 2 * pair };
            let positive = if pair == 7 { anchor } else { 2 * pair + 1 };
            let group = [3, 4].contains(&pair).then_some(GroupKey(1));
            graph.insert(
                PairKey(pair),
                PairEntry {
                    images: [ImageKey(anchor), ImageKey(positive)],
                    group,
                },
            );
        }
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut vectors: Vec<f32> = (0..2 * PAIRS as usize * DIM)
            .map(|_| random.random_range(-1.0..1.0))
            .collect();
        for row in vectors.chunks_exact_mut(DIM) {
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|value| *value /= length);
        }
        Self { graph, vectors }
    }

    fn image(&self, slot: u32) -> usize {
        self.graph
            .image(SlotKey::from_packed(slot))
            .expect("all pairs are there")
            .0 as usize
    }

    fn vector(&self, image: usize) -> &[f32] {
        &self.vectors[image * DIM..(image + 1) * DIM]
    }

    /// ∇L over all anchors and all images, by the definition: each image once, known positives left out.
    fn exact(&self) -> Vec<f64> {
        let mut loss = Cosines::default();
        for anchor in 0..2 * PAIRS {
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
            let scale = BETA / (2 * PAIRS) as f32;
            loss.push(own, self.image(anchor ^ 1), -scale);
            negatives
                .iter()
                .for_each(|image| loss.push(own, *image, scale * weight(*image) / total));
        }
        loss.gradient(DIM, &self.vectors)
            .iter()
            .map(|value| f64::from(*value))
            .collect()
    }

    /// Adds the gradient of one step over `pairs`, and moves the chains.
    fn step(
        &self,
        config: &LearnConfig,
        table: &ChainTable,
        (step, pairs): (u64, &[u32]),
        sum: &mut [f64],
    ) {
        let cache = EmbeddingCache::default();
        let objective = objective(config, table, &cache);
        let keys: Vec<PairKey> = pairs.iter().map(|pair| PairKey(*pair)).collect();
        let seating = Seating::new(&keys, &self.graph, objective.chains());
        let slots = pairs
            .iter()
            .flat_map(|pair| [2 * pair, 2 * pair + 1])
            .map(|slot| self.image(slot));
        let outside = seating.outside();
        let images: Vec<usize> = slots
            .chain(outside.iter().map(|image| image.0 as usize))
            .collect();
        let rows: Vec<f32> = images
            .iter()
            .flat_map(|image| self.vector(*image))
            .copied()
            .collect();
        let carried: BTreeMap<ImageKey, usize> =
            outside.iter().copied().zip(2 * pairs.len()..).collect();

        let mut forward = Forward::new(seating, BETA, step);
        forward.encoded = Encoded::of_rows(DIM, rows, carried);
        forward.refresh();
        forward.visit_all(&*objective, &self.graph, 11);
        let gradient = forward.cosines().gradient(DIM, &forward.encoded.embedding);
        for (image, row) in images.iter().zip(gradient.chunks_exact(DIM)) {
            sum[image * DIM..(image + 1) * DIM]
                .iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += f64::from(*value));
        }
        forward
            .next_states()
            .iter()
            .for_each(|(anchor, state)| table.put(*anchor, *state));
    }

    /// ‖mean gradient over many epochs − ∇L‖ / ‖∇L‖.
    fn error(&self, config: &LearnConfig, batch: usize) -> f64 {
        // Steps this small gain nothing from threads.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a pool of one");
        let (mut random, table) = (ChaCha8Rng::seed_from_u64(7), ChainTable::default());
        let mut sum = vec![0.0; self.vectors.len()];
        let mut order: Vec<u32> = (0..PAIRS).collect();
        let (mut step, mut epochs) = (0, 0);
        while step < 8_000 {
            order.shuffle(&mut random);
            // The first epochs only burn the chains in.
            if epochs == 20 {
                sum.fill(0.0);
            }
            for pairs in order.chunks_exact(batch) {
                pool.install(|| self.step(config, &table, (step, pairs), &mut sum));
                step += 1;
            }
            epochs += 1;
        }
        let steps = (epochs - 20) as f64 * (PAIRS as usize / batch) as f64;
        let exact = self.exact();
        let norm = |values: &mut dyn Iterator<Item = f64>| {
            values.map(|value| value * value).sum::<f64>().sqrt()
        };
        norm(
            &mut sum
                .iter()
                .zip(&exact)
                .map(|(sum, exact)| sum / steps - exact),
        ) / norm(&mut exact.iter().copied())
    }
}

fn config(objective: ObjectiveKind, estimator: Estimator) -> LearnConfig {
    let sampler = SamplerConfig {
        estimator,
        burn_in: 0.5,
        proposals: Proposals::OneView,
    };
    LearnConfig {
        beta: BETA,
        objective,
        sampler,
        scores: Scores::Refreshed,
        carried_budget: 1.0,
        roulette: 0.0,
        sogclr_gamma: 0.9,
        cache_images: 100,
        cache_refresh: 0.1,
        exact_images: 100,
    }
}

#[test]
fn emc2_has_the_gradient_of_the_global_loss_at_any_batch_size() {
    let world = World::new();
    for (estimator, batch) in [
        (Estimator::Subset, 4),
        (Estimator::Subset, 8),
        (Estimator::Walk, 4),
    ] {
        let error = world.error(&config(ObjectiveKind::Emc2, estimator), batch);
        // The noise of 8,000 steps is 0.03; InfoNCE's bias is nine times that.
        assert!(error < 0.05, "{estimator:?}, b = {batch}: {error}");
    }
}

#[test]
fn encoding_only_some_of_the_carried_negatives_keeps_the_gradient() {
    let world = World::new();
    for estimator in [Estimator::Subset, Estimator::Walk] {
        let some = LearnConfig {
            scores: Scores::Stored,
            carried_budget: 0.4,
            roulette: 0.8,
            ..config(ObjectiveKind::Emc2, estimator)
        };
        let error = world.error(&some, 4);
        assert!(error < 0.05, "{estimator:?}: {error}");
    }
}

#[test]
fn infonce_stays_at_its_bias() {
    let error = World::new().error(&config(ObjectiveKind::InfoNce, Estimator::Subset), 4);
    assert!(error > 0.2, "{error}");
}

//! A learner with any number of chains that trains on noise in place of images.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use super::{
    StudyError,
    recipe::{Recipe, chain_table},
    views::distinct_pairs,
};
use kith_learn::{Batch, CarriedViews, Learner, SharedView, StepImages, StepReport, Unreadable};
use kith_mcmc::{ChainColumns, ImageKey, PairGraph, PairKey, Recency};
use kith_seed::mix;

/// Number of distinct views.
const VIEWS: usize = 256;

/// A learner with many chains. Like the trainer's, it computes in a thread pool of its own.
pub(super) struct Fixture {
    pool: ThreadPool,
    learner: Learner,
    graph: PairGraph,
    noise: Noise,
    batch: usize,
    seed: u64,
}

impl Fixture {
    /// A learner with fresh weights and `chains` chains, each of which was visited before.
    pub(super) fn new(recipe: &Recipe, batch: usize, chains: u64) -> Result<Self, StudyError> {
        let mut learner = recipe.fresh()?;
        learner.table = chain_table(&visited_chains(chains, recipe.seed))?;
        let side = recipe.encoder.side;
        let pool = ThreadPoolBuilder::new().build();
        Ok(Self {
            pool: pool.map_err(|error| StudyError::config(error.to_string()))?,
            learner,
            graph: distinct_pairs((chains / 2) as u32),
            noise: Noise::new(side * side * 3, recipe.seed),
            batch,
            seed: recipe.seed,
        })
    }

    /// A batch of random pairs.
    pub(super) fn batch(&self, step: u64) -> Batch {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[self.seed, step]));
        let mut pairs: Vec<PairKey> = Vec::new();
        while pairs.len() < self.batch {
            let pair = PairKey(random.random_range(0..self.graph.len() as u32));
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        let slots = pairs.iter().flat_map(|pair| [2 * pair.0, 2 * pair.0 + 1]);
        let views: Vec<&[f32]> = slots
            .map(|slot| &self.noise.view(ImageKey(slot))[..])
            .collect();
        let pixels = views.concat();
        Batch {
            step,
            pairs,
            recency: Recency::NONE,
            side: self.learner.towers.config().side,
            pixels,
        }
    }

    /// One training step on `batch`, while the images of the `next` one are uploaded.
    pub(super) fn step(&mut self, batch: &Batch, next: &Batch) -> Result<StepReport, StudyError> {
        let (learner, graph, carried) = (&mut self.learner, &self.graph, &self.noise);
        let step = || {
            let [now, next] = [batch, next].map(|batch| StepImages { batch, carried });
            learner.step_ahead((now, Some(next)), graph, 1e-4)
        };
        Ok(self.pool.install(step)?)
    }
}

/// Views of noise. They are made once and shared by the images, so that timings hold none of the time that noise takes.
struct Noise(Vec<SharedView>);

impl Noise {
    fn new(values: usize, seed: u64) -> Self {
        let view = |number: u64| {
            let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, number]));
            let value = |_| random.random_range(-1.0..1.0);
            Arc::new((0..values).map(value).collect())
        };
        Self((0..VIEWS as u64).into_par_iter().map(view).collect())
    }

    fn view(&self, image: ImageKey) -> &SharedView {
        &self.0[image.0 as usize % VIEWS]
    }
}

impl CarriedViews for Noise {
    fn views(
        &self,
        _step: u64,
        images: &[ImageKey],
    ) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let view = |image: &ImageKey| Some(self.view(*image).clone());
        Ok(images.iter().map(view).collect())
    }
}

/// The columns of a chain table in which every anchor was visited and has a negative of its own.
pub(super) fn visited_chains(chains: u64, seed: u64) -> ChainColumns {
    let anchors = 0..chains as u32;
    let elsewhere = |anchor: u32| (mix(&[seed, u64::from(anchor)]) % chains) as u32;
    let ones = vec![1; chains as usize];
    ChainColumns {
        negative: anchors.clone().map(elsewhere).collect(),
        log_score: vec![1.0; chains as usize],
        step: ones.clone(),
        visits: ones.clone(),
        visits_since_move: ones,
        anchor: anchors.collect(),
        ..ChainColumns::default()
    }
}

//! A learner with as many chains as one likes, and steps of it on noise in the place of images. Must never know: what is timed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    StudyError,
    state::{Recipe, table},
};
use crate::{
    learn::{Batch, CarriedViews, Learner, StepReport},
    mcmc::{ChainColumns, PairEntry, PairGraph},
    types::{ImageKey, PairKey, mix},
};

/// A learner with many chains.
pub(super) struct Rig {
    learner: Learner,
    graph: PairGraph,
    noise: Noise,
    batch: usize,
    seed: u64,
}

impl Rig {
    /// Fresh weights, and `chains` chains that were all visited before.
    pub(super) fn new(recipe: &Recipe, batch: usize, chains: u64) -> Result<Self, StudyError> {
        let mut learner = recipe.fresh()?;
        learner.table = table(&columns(chains, recipe.seed))?;
        let mut graph = PairGraph::default();
        for pair in 0..(chains / 2) as u32 {
            let images = [ImageKey(2 * pair), ImageKey(2 * pair + 1)];
            graph.insert(
                PairKey(pair),
                PairEntry {
                    images,
                    group: None,
                },
            );
        }
        let side = recipe.encoder.side;
        Ok(Self {
            learner,
            graph,
            noise: Noise(side * side * 3),
            batch,
            seed: recipe.seed,
        })
    }

    /// One step over random pairs.
    pub(super) fn step(&mut self, step: u64) -> Result<StepReport, StudyError> {
        let mut random = ChaCha8Rng::seed_from_u64(mix(&[self.seed, step]));
        let mut pairs: Vec<PairKey> = Vec::new();
        while pairs.len() < self.batch {
            let pair = PairKey(random.random_range(0..self.graph.len() as u32));
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        let slots = pairs.iter().flat_map(|pair| [2 * pair.0, 2 * pair.0 + 1]);
        let images: Vec<ImageKey> = slots.map(ImageKey).collect();
        let views: Vec<Vec<f32>> = self
            .noise
            .views(step, &images)
            .into_iter()
            .flatten()
            .collect();
        let batch = Batch {
            step,
            pairs,
            pixels: views.concat(),
        };
        Ok(self.learner.step(&batch, &self.graph, &self.noise, 1e-4)?)
    }
}

/// Views of nothing: as many values.
struct Noise(usize);

impl CarriedViews for Noise {
    fn views(&self, _step: u64, images: &[ImageKey]) -> Vec<Option<Vec<f32>>> {
        let view = |image: &ImageKey| {
            let mut random = ChaCha8Rng::seed_from_u64(u64::from(image.0));
            Some(
                (0..self.0)
                    .map(|_| random.random_range(-1.0..1.0))
                    .collect(),
            )
        };
        images.par_iter().map(view).collect()
    }
}

/// A table in which every anchor was visited, each at a place of its own.
pub(super) fn columns(chains: u64, seed: u64) -> ChainColumns {
    let anchors = 0..chains as u32;
    let elsewhere = |anchor: u32| (mix(&[seed, u64::from(anchor)]) % chains) as u32;
    let ones = vec![1; chains as usize];
    ChainColumns {
        negative: anchors.clone().map(elsewhere).collect(),
        log_score: vec![1.0; chains as usize],
        step: ones.clone(),
        visits: ones.clone(),
        still: ones,
        anchor: anchors.collect(),
        ..ChainColumns::default()
    }
}

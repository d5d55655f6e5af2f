//! Fixtures: a tiny encoder, images made of waves, and pairs of them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Mutex,
};

use kith_learn::{
    Batch, CarriedViews, LearnConfig, Learner, NeuClipConfig, ObjectiveKind, Scores, SharedView,
    Unreadable,
};
use kith_mcmc::{
    ChainTable, Estimator, ImageKey, PairEntry, PairGraph, PairKey, Proposals, Recency,
    SamplerConfig, Side, SlotKey,
};
use kith_nn::{Device, EncoderConfig, OptimizerConfig, OptimizerKind, TowerOptimizer, Towers};
use kith_seed::mix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const TINY: EncoderConfig = EncoderConfig {
    width: 8,
    side: 32,
    dim: 16,
    towers: 1,
};
pub(crate) const SEED: u64 = 9;
pub(crate) const PIXELS: usize = 32 * 32 * 3;

pub(crate) fn config(estimator: Estimator, scores: Scores) -> LearnConfig {
    let sampler = SamplerConfig {
        estimator,
        burn_in: 0.5,
        proposals: Proposals::OneView,
    };
    LearnConfig {
        beta: 10.0,
        objective: ObjectiveKind::Emc2,
        sampler,
        scores,
        carried_budget: 1.0,
        roulette: 0.0,
        sogclr_gamma: 0.9,
        scent_alpha: 0.1,
        neuclip: NeuClipConfig {
            prototypes: 64,
            updates: 10,
            rate: 0.03,
            restart_steps: 500,
        },
        cache_images: 100,
        cache_refresh: 0.1,
        exact_images: 100,
        average_steps: 0,
        start_share: 0.0,
    }
}

pub(crate) fn infonce() -> LearnConfig {
    let [infonce, ..] = baselines();
    infonce
}

pub(crate) fn learner(config: LearnConfig) -> Learner {
    learner_on(&Device::cpu(), config)
}

pub(crate) fn learner_on(device: &Device, config: LearnConfig) -> Learner {
    learner_of(&TINY, device, config)
}

/// A learner with an encoder for each side.
pub(crate) fn two_towers(config: LearnConfig) -> Learner {
    let shape = EncoderConfig { towers: 2, ..TINY };
    learner_of(&shape, &Device::cpu(), config)
}

/// A learner with encoders of another shape.
pub(crate) fn learner_of(shape: &EncoderConfig, device: &Device, config: LearnConfig) -> Learner {
    let towers = Towers::fresh(shape, 1, device).expect("a tiny encoder");
    let adam = OptimizerConfig {
        kind: OptimizerKind::Adamw,
        weight_decay: 1e-4,
        momentum: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        clip_norm: 1.0,
        adaptive_clip: 0.0,
    };
    let optimizer = TowerOptimizer::new(&adam, &towers).expect("moments for it");
    Learner::new(config, SEED, towers, optimizer, ChainTable::default())
}

/// A view of an image: smooth colour waves, shifted a little by `seed`. Images are easy to tell apart, and views of one image differ.
pub(crate) fn view(image: ImageKey, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[3, u64::from(image.0)]));
    let waves: [f32; 12] = std::array::from_fn(|_| random.random_range(-1.0..1.0));
    let shift = ChaCha8Rng::seed_from_u64(seed).random_range(0.0..0.4);
    let value = |k: usize| {
        let (x, y, c) = ((k / 3 % 32) as f32 / 8.0, (k / 96) as f32 / 8.0, k % 3 * 4);
        (waves[c] * 3.0 * x + waves[c + 1] * 3.0 * y + waves[c + 2] * 6.0 + shift).sin()
            + waves[c + 3]
    };
    (0..PIXELS).map(value).collect()
}

/// Stored images, some of which cannot be read; records which it was asked for.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) unreadable: HashSet<ImageKey>,
    pub(crate) broken: bool,
    /// Nothing can be read for now.
    pub(crate) fails: bool,
    pub(crate) asked: Mutex<BTreeSet<ImageKey>>,
}

impl CarriedViews for Store {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        if self.fails {
            return Err(Unreadable("the disk is away".to_owned()));
        }
        let mut asked = self.asked.lock().expect("no test thread panicked");
        let distinct: BTreeSet<ImageKey> = images.iter().copied().collect();
        assert_eq!(distinct.len(), images.len(), "an image is asked for once");
        asked.extend(distinct);
        let view = |image: &ImageKey| {
            if self.broken {
                vec![f32::NAN; PIXELS]
            } else {
                view(*image, step)
            }
        };
        let readable = |image: &ImageKey| !self.unreadable.contains(image);
        let found = |image| readable(image).then(|| view(image).into());
        Ok(images.iter().map(found).collect())
    }
}

/// Pairs of the images `2k` and `2k + 1`, but image 0 is in pairs 0 and 1, and pair 2 is two views of one image.
pub(crate) fn graph(pairs: u32) -> PairGraph {
    fill(PairGraph::default(), pairs)
}

/// The same with directed pairs.
pub(crate) fn directed_graph(pairs: u32) -> PairGraph {
    fill(PairGraph::directed(), pairs)
}

fn fill(mut graph: PairGraph, pairs: u32) -> PairGraph {
    for pair in 0..pairs {
        let images = match pair {
            1 => [0, 3],
            2 => [4, 4],
            _ => [2 * pair, 2 * pair + 1],
        };
        let entry = PairEntry::new(images.map(ImageKey), None);
        graph.insert(PairKey(pair), entry);
    }
    graph
}

pub(crate) fn batch(graph: &PairGraph, step: u64, pairs: &[u32]) -> Batch {
    let slots = pairs
        .iter()
        .flat_map(|pair| [2 * pair, 2 * pair + 1])
        .map(SlotKey::from_packed);
    let pixels = slots
        .flat_map(|slot| {
            let image = graph.image(slot).unwrap_or(ImageKey(999));
            view(image, mix(&[step, u64::from(slot.packed())]))
        })
        .collect();
    Batch {
        step,
        pairs: pairs.iter().copied().map(PairKey).collect(),
        recency: Recency::NONE,
        side: 32,
        pixels,
    }
}

/// The other objectives; the cache refreshes a quarter of the images in each step.
pub(crate) fn baselines() -> [LearnConfig; 6] {
    let of = |objective| LearnConfig {
        objective,
        cache_refresh: 0.25,
        ..config(Estimator::Subset, Scores::Stored)
    };
    [
        of(ObjectiveKind::InfoNce),
        of(ObjectiveKind::SogClr),
        of(ObjectiveKind::Scent),
        of(ObjectiveKind::NeuClip),
        of(ObjectiveKind::NegativeCache),
        of(ObjectiveKind::Exact),
    ]
}

/// EMC² with every way to score and to choose carried negatives.
pub(crate) fn all_configs() -> Vec<LearnConfig> {
    let scores = [Scores::Stored, Scores::Refreshed];
    let variants = |scores| {
        let subset = config(Estimator::Subset, scores);
        let walk = config(Estimator::Walk, scores);
        let roulette = LearnConfig {
            roulette: 0.5,
            ..subset.clone()
        };
        let budgeted = LearnConfig {
            carried_budget: 0.5,
            ..walk.clone()
        };
        [subset, walk, roulette, budgeted]
    };
    scores.into_iter().flat_map(variants).collect()
}

/// Whether every carried negative with a weight is encoded.
pub(crate) fn encodes_all(config: &LearnConfig) -> bool {
    match config.objective {
        ObjectiveKind::Emc2 => {
            config.scores == Scores::Refreshed
                || (config.roulette == 0.0 && config.carried_budget == 1.0)
        }
        ObjectiveKind::InfoNce
        | ObjectiveKind::SogClr
        | ObjectiveKind::Scent
        | ObjectiveKind::NeuClip => false,
        ObjectiveKind::NegativeCache | ObjectiveKind::Exact => true,
    }
}

/// Cosines of the batch's images under the learner's encoder, `[slots][slots]`.
pub(crate) fn cosines(learner: &Learner, batch: &Batch) -> Vec<Vec<f32>> {
    let rows = learner
        .towers
        .get(Side::Anchor)
        .forward(&batch.pixels)
        .expect("it encodes")
        .embedding;
    let row = |i: usize| &rows.data[i * rows.dim..(i + 1) * rows.dim];
    let cosine = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
    let slots = 2 * batch.pairs.len();
    (0..slots)
        .map(|i| (0..slots).map(|j| cosine(i, j)).collect())
        .collect()
}

/// β times [`cosines`].
pub(crate) fn scores(learner: &Learner, batch: &Batch) -> Vec<Vec<f32>> {
    let beta = learner.config().beta;
    let mut scores = cosines(learner, batch);
    scores.iter_mut().flatten().for_each(|score| *score *= beta);
    scores
}

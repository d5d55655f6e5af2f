//! One training step: encode a batch, weigh the negatives, take the gradient, update the weights, move the chains.
//! Must never know: where batches come from, databases, files, HTTP, the tensor library.

use serde::{Deserialize, Serialize};

use crate::{
    mcmc::{ChainTable, PairGraph, SamplerConfig},
    nn::{Encoder, NnError, Optimizer},
    types::{ImageKey, PairKey},
};

/// How a step learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnConfig {
    /// β, the inverse temperature: scores are β φ(x)·ψ(z).
    pub beta: f32,
    /// Which loss is descended.
    pub objective: ObjectiveKind,
    /// How negatives are drawn. Not used by `infonce`.
    pub sampler: SamplerConfig,
    /// Which score a carried negative has in a visit.
    pub scores: Scores,
    /// Walk with `stored` scores: share of the distinct carried images that is encoded (and weighted up), in (0, 1].
    pub carried_budget: f32,
    /// Subset kernel with `stored` scores, τ of the Russian roulette: a carried negative of weight w is encoded with probability
    /// min(1, w/τ) and weighted up accordingly. 0 encodes all of them.
    pub roulette: f32,
}

/// The losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    /// The global contrastive loss by Markov chains (Yau et al. 2024).
    Emc2,
    /// The softmax over the batch (van den Oord et al. 2018).
    #[serde(rename = "infonce")]
    InfoNce,
}

/// Which score a carried negative has in a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// The one it had when it was last encoded.
    Stored,
    /// Today's: every carried negative is encoded with the batch, before the visits.
    Refreshed,
}

/// The pairs of one step, with their augmented images.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The step's number; all randomness of the step derives from it.
    pub step: u64,
    /// The pairs, each at most once.
    pub pairs: Vec<PairKey>,
    /// `[2 · pairs, side, side, 3]`: each pair's anchor, then its positive.
    pub pixels: Vec<f32>,
}

/// Gives augmented views of stored images: those of carried negatives.
pub trait CarriedViews {
    /// One view (`[side, side, 3]`) of each of `images`; `None` where an image is gone or cannot be read.
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<Vec<f32>>>;
}

/// The encoder in training, its optimiser and its chains.
pub struct Learner {
    /// The network.
    pub encoder: Encoder,
    /// Its moments.
    pub optimizer: Optimizer,
    /// The chains.
    pub table: ChainTable,
    config: LearnConfig,
    seed: u64,
}

impl Learner {
    /// Puts the parts together; `seed` is the run's.
    pub fn new(
        config: LearnConfig,
        seed: u64,
        encoder: Encoder,
        optimizer: Optimizer,
        table: ChainTable,
    ) -> Self {
        Self {
            encoder,
            optimizer,
            table,
            config,
            seed,
        }
    }

    /// The settings.
    pub fn config(&self) -> &LearnConfig {
        &self.config
    }

    /// One step at learning rate `rate`. On [`LearnError::NonFinite`] nothing has changed: neither weights nor moments nor chains.
    pub fn step(
        &mut self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
        rate: f32,
    ) -> Result<StepReport, LearnError> {
        let _ = (batch, graph, carried, rate, self.seed);
        todo!()
    }
}

/// What a step saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The objective's own value on this batch.
    pub loss: f32,
    /// Estimate of the global loss: the batch's mean of exp(score) stands for the set's. Comes from below as the batch grows.
    pub global_loss_estimate: f32,
    /// Mean cosine of positives.
    pub positive_cosine: f32,
    /// As [`crate::eval::Geometry::spread`], over the batch.
    pub spread: f32,
    /// Mean cosine of an anchor and a candidate negative of the batch.
    pub mean_cosine: f32,
    /// Accepted share of the proposals (walk), or share of chains that moved (subset kernel).
    pub acceptance_rate: f32,
    /// Anchors with at least one candidate negative.
    pub anchors: usize,
    /// Carried negatives that were encoded.
    pub carried_encoded: usize,
    /// Global L2 norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// Seconds in the visits.
    pub walk_seconds: f64,
    /// Seconds in forward passes, loading carried negatives included.
    pub encode_seconds: f64,
    /// Seconds in backward passes and the update.
    pub backward_seconds: f64,
}

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A value is infinite or not a number; nothing was updated.
    #[error("the {what} of step {step} is not finite")]
    NonFinite {
        /// Which value.
        what: &'static str,
        /// The step.
        step: u64,
    },
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

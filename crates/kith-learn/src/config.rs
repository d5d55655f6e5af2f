//! The settings of a step and what can go wrong in one. Must never know: how a step is done.

use serde::{Deserialize, Serialize};

use kith_mcmc::{SamplerConfig, StateKind};
use kith_nn::NnError;

/// How a step learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnConfig {
    /// β, the inverse temperature: scores are β φ(x)·ψ(z).
    pub beta: f32,
    /// Which loss is descended.
    pub objective: ObjectiveKind,
    /// How negatives are drawn. Used by `emc2`.
    pub sampler: SamplerConfig,
    /// Which score a carried negative has in a visit.
    pub scores: Scores,
    /// Walk: share of the distinct carried images that is encoded with gradient (and weighted up), in (0, 1].
    pub carried_budget: f32,
    /// Subset kernel, τ of the Russian roulette: a carried negative of weight w is encoded with gradient with probability min(1, w/τ) and
    /// weighted up accordingly. 0 encodes all of them.
    pub roulette: f32,
    /// `sogclr`, γ: what the batch weighs against the past in an anchor's moving average, in (0, 1].
    pub sogclr_gamma: f32,
    /// `negative_cache`: most embeddings that are kept; beyond it the longest unrefreshed ones are forgotten, and with them these images as
    /// negatives until their next turn.
    pub cache_images: usize,
    /// `negative_cache`: share of all images that is encoded anew for the cache in each step, in [0, 1].
    pub cache_refresh: f32,
    /// `exact`: most images it is willing to encode in each step.
    pub exact_images: usize,
}

impl LearnConfig {
    /// Says which setting cannot be used, and what it must be.
    pub fn validate(&self) -> Result<(), LearnError> {
        let rules = [
            (
                self.beta.is_finite() && self.beta > 0.0,
                "beta must be a positive number",
            ),
            (
                (0.0..=1.0).contains(&self.sampler.burn_in),
                "sampler.burn_in must lie in [0, 1]",
            ),
            (
                self.carried_budget > 0.0 && self.carried_budget <= 1.0,
                "carried_budget must lie in (0, 1]",
            ),
            (
                self.roulette.is_finite() && self.roulette >= 0.0,
                "roulette must be 0 or a positive number",
            ),
            (
                self.sogclr_gamma > 0.0 && self.sogclr_gamma <= 1.0,
                "sogclr_gamma must lie in (0, 1]",
            ),
            (self.cache_images > 0, "cache_images must be at least 1"),
            (
                (0.0..=1.0).contains(&self.cache_refresh),
                "cache_refresh must lie in [0, 1]",
            ),
            (self.exact_images > 0, "exact_images must be at least 1"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => Err(LearnError::Config(rule)),
            None => Ok(()),
        }
    }
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
    /// The global contrastive loss by moving averages (Yuan et al. 2022).
    #[serde(rename = "sogclr")]
    SogClr,
    /// The global contrastive loss by a cache of stale embeddings (Lindgren et al. 2021).
    NegativeCache,
    /// The global contrastive loss by encoding every image.
    Exact,
}

impl ObjectiveKind {
    /// What it keeps for each anchor; `None`: nothing.
    pub fn states(self) -> Option<StateKind> {
        match self {
            Self::Emc2 => Some(StateKind::Chains),
            Self::SogClr => Some(StateKind::Averages),
            Self::InfoNce | Self::NegativeCache | Self::Exact => None,
        }
    }
}

/// Which score a carried negative has in a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// The one it had when it was last encoded: of an encoder up to an epoch of steps ago. Only what has weight is encoded.
    Stored,
    /// Today's: every carried negative is encoded before the visits, with the batch; or, where the roulette or the budget leaves some out
    /// of the gradient, by a forward pass of its own.
    Refreshed,
}

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A setting cannot be used.
    #[error("{0}")]
    Config(&'static str),
    /// A value is infinite or not a number; nothing was updated.
    #[error("the {what} of step {step} is not finite")]
    NonFinite {
        /// Which value.
        what: &'static str,
        /// The step.
        step: u64,
    },
    /// The `exact` objective has more images before it than it may encode.
    #[error(
        "the exact objective encodes all {images} images in each step, learning.exact_images allows {most}: raise it, or set \
         learning.objective to emc2, which estimates the same loss from small batches"
    )]
    TooManyImages {
        /// In the trained pairs.
        images: usize,
        /// The setting.
        most: usize,
    },
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

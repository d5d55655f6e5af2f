//! The settings of a training step.

use serde::{Deserialize, Serialize};

use super::LearnError;
use kith_mcmc::{SamplerConfig, StateKind};

/// The settings of a training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnConfig {
    /// β, the inverse temperature: scores are β φ(x)·ψ(z).
    pub beta: f32,
    /// The objective.
    pub objective: ObjectiveKind,
    /// `emc2`: how negatives are drawn.
    pub sampler: SamplerConfig,
    /// `emc2`: which score a carried negative has in a visit.
    pub scores: Scores,
    /// `emc2` with the walk: share of the distinct carried images that is encoded with a gradient, in (0, 1]. Their weights are divided by
    /// it, so that the gradient stays unbiased.
    pub carried_budget: f32,
    /// `emc2` with the subset kernel: τ of the Russian roulette. A carried negative of weight w is encoded with a gradient with probability
    /// ρ = min(1, w / τ), and its weight is divided by ρ. 0 encodes all of them.
    pub roulette: f32,
    /// `sogclr`: γ, the weight of the batch in an anchor's moving average, in (0, 1].
    pub sogclr_gamma: f32,
    /// `negative_cache`: largest number of cached embeddings. Beyond it, the longest unrefreshed ones are dropped, and their images are no
    /// negatives until their next turn.
    pub cache_images: usize,
    /// `negative_cache`: share of all images that each step encodes anew for the cache, in [0, 1].
    pub cache_refresh: f32,
    /// `exact`: largest number of images that a step may encode.
    pub exact_images: usize,
}

impl LearnConfig {
    /// Checks the ranges of all settings; the error names the first bad one and its range.
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

/// The objectives.
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
    /// The kind of state that the objective has for each anchor, if any.
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
    /// The score of its last encoding, which may be an epoch of steps ago. Only carried negatives with a weight are encoded.
    Stored,
    /// The current score. Every carried negative is encoded before the visits: with the batch, or by a separate forward pass if the roulette
    /// or the budget may leave it out of the gradient.
    Refreshed,
}

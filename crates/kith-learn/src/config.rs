//! The settings of a training step.

use serde::{Deserialize, Serialize};

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
    /// `emc2` with the walk: share of the distinct carried images that is encoded with a gradient, in (0, 1]. The weights of these
    /// are divided by the share, so that the gradient stays unbiased.
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
    /// Steps that the averaged weights reach back over; 0: weights are not averaged.
    pub average_steps: u64,
}

impl LearnConfig {
    /// The settings that are out of range, each with what it must be.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let positive_share = |value: f32| value > 0.0 && value <= 1.0;
        let beta = self.beta.is_finite() && self.beta > 0.0;
        let roulette = self.roulette.is_finite() && self.roulette >= 0.0;
        let rules = [
            (beta, ("beta", "above 0")),
            // A walk retains its last proposal even where the burn-in is all of it.
            (
                share(self.sampler.burn_in),
                ("sampler.burn_in", "from 0 to 1"),
            ),
            (
                positive_share(self.carried_budget),
                ("carried_budget", "above 0 and at most 1"),
            ),
            (roulette, ("roulette", "0 or more")),
            (
                positive_share(self.sogclr_gamma),
                ("sogclr_gamma", "above 0 and at most 1"),
            ),
            (self.cache_images > 0, ("cache_images", "at least 1")),
            (share(self.cache_refresh), ("cache_refresh", "from 0 to 1")),
            (self.exact_images > 0, ("exact_images", "at least 1")),
        ];
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem).collect()
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

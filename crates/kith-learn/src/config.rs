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
    /// `scent`: α, the step size of the dual variables, above 0. The batch's weight in an anchor's normaliser exp(ν) is
    /// α exp(ν) / (1 + α exp(ν)).
    pub scent_alpha: f32,
    /// `neuclip`: the network that predicts log normalisers.
    pub neuclip: NeuClipConfig,
    /// `negative_cache`: largest number of cached embeddings. Beyond it, the longest unrefreshed ones are dropped, and their images are no
    /// negatives until their next turn.
    pub cache_images: usize,
    /// `negative_cache`: share of all images that each step encodes anew for the cache, in [0, 1].
    pub cache_refresh: f32,
    /// `exact`: largest number of images that a step may encode.
    pub exact_images: usize,
    /// Steps that the averaged weights reach back over; 0: weights are not averaged.
    pub average_steps: u64,
    /// Share of the average that stays with the weights that training began with, in [0, 1), if they had learned before ([`super::AveragedWeights`]).
    pub start_share: f32,
}

impl LearnConfig {
    /// The settings that are out of range, each with what it must be.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let positive_share = |value: f32| value > 0.0 && value <= 1.0;
        let beta = self.beta.is_finite() && self.beta > 0.0;
        let scent_alpha = self.scent_alpha.is_finite() && self.scent_alpha > 0.0;
        let neuclip = &self.neuclip;
        let neuclip_rate = neuclip.rate.is_finite() && neuclip.rate >= 0.0;
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
            (scent_alpha, ("scent_alpha", "above 0")),
            (
                (1..=NeuClipConfig::MAX_PROTOTYPES).contains(&neuclip.prototypes),
                ("neuclip.prototypes", "from 1 to 65536"),
            ),
            (
                neuclip.updates <= NeuClipConfig::MAX_UPDATES,
                ("neuclip.updates", "at most 1000"),
            ),
            (neuclip_rate, ("neuclip.rate", "0 or more")),
            (
                neuclip.restart_steps > 0,
                ("neuclip.restart_steps", "at least 1"),
            ),
            (self.cache_images > 0, ("cache_images", "at least 1")),
            (share(self.cache_refresh), ("cache_refresh", "from 0 to 1")),
            (self.exact_images > 0, ("exact_images", "at least 1")),
            (
                (0.0..1.0).contains(&self.start_share),
                ("start_share", "at least 0 and below 1"),
            ),
        ];
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem).collect()
    }
}

/// The settings of `neuclip`'s network, whose prototypes are learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeuClipConfig {
    /// Number of prototypes, from 1 to [`NeuClipConfig::MAX_PROTOTYPES`]. The state takes 8 · `dim` bytes for each.
    pub prototypes: usize,
    /// Updates of the prototypes in each step, all on the batch of that step; at most [`NeuClipConfig::MAX_UPDATES`].
    pub updates: u32,
    /// AdaGrad's learning rate.
    pub rate: f32,
    /// Steps after which a prototype is set to an embedding of the current batch again, at least 1.
    pub restart_steps: u64,
}

impl NeuClipConfig {
    /// Most updates in a step: a stop waits for the step in progress.
    pub const MAX_UPDATES: u32 = 1000;
    /// Most prototypes.
    pub const MAX_PROTOTYPES: usize = 1 << 16;
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
    /// The global contrastive loss by a dual variable for each anchor (Wei et al. 2026).
    Scent,
    /// The global contrastive loss by a network that predicts log normalisers (Wei et al. 2026).
    #[serde(rename = "neuclip")]
    NeuClip,
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
            Self::SogClr | Self::Scent => Some(StateKind::Averages),
            Self::InfoNce | Self::NeuClip | Self::NegativeCache | Self::Exact => None,
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

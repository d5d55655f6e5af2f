//! Which optimiser trains the encoder, as a setting.

use serde::{Deserialize, Serialize};

use super::error::NnError;

/// Which optimiser, with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// `adamw` (decoupled decay), `adam` (decay in the gradient) or `sgd`.
    pub kind: OptimizerKind,
    /// Weight decay per unit of learning rate. Biases are not decayed.
    pub weight_decay: f32,
    /// SGD's momentum, or Adam's β₁.
    pub momentum: f32,
    /// Adam's β₂.
    pub beta2: f32,
    /// Adam's ε.
    pub epsilon: f32,
    /// Largest global gradient norm; gradients of a larger one are scaled down to it. 0: no clipping.
    pub clip_norm: f32,
    /// Adaptive gradient clipping (Brock et al. 2021): largest norm of the gradient of a filter, which is all weights of one output, as a share of
    /// the norm of those weights; gradients of a larger one are scaled down to it. Biases are not clipped by it. 0: no such clipping.
    pub adaptive_clip: f32,
}

/// The optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    Adamw,
    /// Adam (Kingma & Ba 2015), weight decay added to the gradient.
    Adam,
    /// Stochastic gradient descent with momentum, as PyTorch defines it.
    Sgd,
}

impl OptimizerConfig {
    /// The settings that are out of range, each with what it must be.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let fraction = |value: f32| (0.0..1.0).contains(&value);
        let non_negative = |value: f32| value >= 0.0 && value.is_finite();
        let epsilon = self.epsilon > 0.0 && self.epsilon.is_finite();
        let rules = [
            (
                non_negative(self.weight_decay),
                ("weight_decay", "0 or more"),
            ),
            (
                fraction(self.momentum),
                ("momentum", "at least 0 and below 1"),
            ),
            (fraction(self.beta2), ("beta2", "at least 0 and below 1")),
            (epsilon, ("epsilon", "above 0")),
            (non_negative(self.clip_norm), ("clip_norm", "0 or more")),
            (
                non_negative(self.adaptive_clip),
                ("adaptive_clip", "0 or more"),
            ),
        ];
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem).collect()
    }

    /// An error that names the first setting of [`OptimizerConfig::problems`].
    pub fn validate(&self) -> Result<(), NnError> {
        NnError::check_problems(&self.problems())
    }
}

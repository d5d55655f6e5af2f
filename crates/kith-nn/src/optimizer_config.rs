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
    /// An error that names the first constant that is not valid, and its valid values.
    pub fn validate(&self) -> Result<(), NnError> {
        let fraction = |value: f32| (0.0..1.0).contains(&value);
        let checks = [
            (
                fraction(self.momentum),
                "momentum must be from 0 to below 1",
            ),
            (fraction(self.beta2), "beta2 must be from 0 to below 1"),
            (
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                "weight_decay must be 0 or more",
            ),
            (
                self.epsilon > 0.0 && self.epsilon.is_finite(),
                "epsilon must be above 0",
            ),
            (
                self.clip_norm >= 0.0 && self.clip_norm.is_finite(),
                "clip_norm must be 0 (no clipping) or more",
            ),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, message)) => Err(NnError::Config((*message).to_owned())),
            None => Ok(()),
        }
    }
}

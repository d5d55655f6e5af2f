//! The sampler's settings.

use serde::{Deserialize, Serialize};

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// A Metropolis–Hastings walk over the batch, averaged over the retained states (Yau et al. 2024, algorithm 1).
    Walk,
    /// The softmax over the chain state and the batch (Tjelmeland 2004, Calderhead 2014).
    Subset,
}

/// Which images of a batch one walk proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposals {
    /// One of each other pair's two images, at random. The bias vanishes as the set grows.
    OneView,
    /// Both images of each other pair, as in the authors' code. The bias does not vanish; studies use it as a control.
    BothViews,
}

/// The sampler's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// How negatives are drawn.
    pub estimator: Estimator,
    /// Share of a walk's proposals that only move the chain, in [0, 1]. The subset kernel does not use it.
    pub burn_in: f32,
    /// Which images a walk proposes. The subset kernel does not use it.
    pub proposals: Proposals,
}

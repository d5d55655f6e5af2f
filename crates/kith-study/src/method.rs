//! The objectives that the studies compare, and their names in reports.

use serde::{Deserialize, Serialize};

use kith_learn::{LearnConfig, NeuClipConfig, ObjectiveKind, Scores};
use kith_mcmc::{Estimator, Proposals, SamplerConfig};

/// An objective, with its estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Method {
    /// EMC² with the paper's random walk.
    Emc2Walk,
    /// EMC² with the subset kernel.
    Emc2Subset,
    /// InfoNCE: the softmax over the batch.
    #[serde(rename = "infonce")]
    InfoNce,
    /// SogCLR: moving averages of the denominators.
    #[serde(rename = "sogclr")]
    SogClr,
    /// SCENT: a dual variable for each anchor.
    Scent,
    /// NeuCLIP: a network that predicts the denominators.
    #[serde(rename = "neuclip")]
    NeuClip,
    /// A cache of stale embeddings of all images.
    NegativeCache,
    /// The exact global loss: every image in every step.
    Exact,
}

impl Method {
    /// The objectives that the paper compares, and two that came after it.
    pub(super) const COMPARED: [Self; 7] = [
        Self::Emc2Walk,
        Self::Emc2Subset,
        Self::InfoNce,
        Self::SogClr,
        Self::Scent,
        Self::NeuClip,
        Self::NegativeCache,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Emc2Walk => "emc2-walk",
            Self::Emc2Subset => "emc2-subset",
            Self::InfoNce => "infonce",
            Self::SogClr => "sogclr",
            Self::Scent => "scent",
            Self::NeuClip => "neuclip",
            Self::NegativeCache => "negative-cache",
            Self::Exact => "exact",
        }
    }

    /// The name of its series at one batch size.
    pub(super) fn series(self, batch: usize) -> String {
        format!("{}, b = {batch}", self.name())
    }

    pub(super) fn is_emc2(self) -> bool {
        matches!(self, Self::Emc2Walk | Self::Emc2Subset)
    }

    fn objective(self) -> ObjectiveKind {
        match self {
            Self::Emc2Walk | Self::Emc2Subset => ObjectiveKind::Emc2,
            Self::InfoNce => ObjectiveKind::InfoNce,
            Self::SogClr => ObjectiveKind::SogClr,
            Self::Scent => ObjectiveKind::Scent,
            Self::NeuClip => ObjectiveKind::NeuClip,
            Self::NegativeCache => ObjectiveKind::NegativeCache,
            Self::Exact => ObjectiveKind::Exact,
        }
    }

    /// The settings of a step: burn-in 0.5, refreshed scores, every carried negative encoded; γ = 0.9; α = 0.1; 256 prototypes with ten updates a step; a cache of all `images`, a
    /// hundredth of which is re-encoded in each step.
    pub(super) fn config(self, beta: f32, images: usize) -> LearnConfig {
        let estimator = match self {
            Self::Emc2Walk => Estimator::Walk,
            _ => Estimator::Subset,
        };
        LearnConfig {
            beta,
            objective: self.objective(),
            sampler: SamplerConfig {
                estimator,
                burn_in: 0.5,
                proposals: Proposals::OneView,
            },
            scores: Scores::Refreshed,
            carried_budget: 1.0,
            roulette: 0.0,
            sogclr_gamma: 0.9,
            scent_alpha: 0.1,
            neuclip: NeuClipConfig {
                prototypes: 256,
                updates: 10,
                rate: 0.03,
                restart_steps: 500,
            },
            cache_images: images.max(1),
            cache_refresh: 0.01,
            exact_images: images.max(1),
            average_steps: 0,
            start_share: 0.0,
        }
    }
}

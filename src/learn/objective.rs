//! The seam between a step and what it descends: scores of one anchor in, weights of its negatives (and the chain's next state) out.
//! Must never know: embeddings, gradients, how an image is encoded.

use super::{LearnConfig, ObjectiveKind, emc2::Emc2, infonce::InfoNce};
use crate::mcmc::{ChainState, Visit};

/// A loss of the form mean over anchors of −(score of the positive) + (a term whose gradient is Σ weight · ∇ score).
pub(super) trait Objective: Sync {
    /// Whether anchors have chains, to be read before and written after the step.
    fn has_chains(&self) -> bool;

    /// The second term of one anchor, at `position` of the batch; its positive stands at `position ^ 1`.
    /// `None`: there is no candidate, the anchor takes no part in the step.
    fn term(&self, position: usize, visit: &Visit<'_>) -> Option<Term>;
}

/// An anchor's second term.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// (position in the batch, weight); constants in the gradient.
    pub(super) weights: Vec<(usize, f32)>,
    /// Weight of the carried negative when it is not in the batch.
    pub(super) carried: f32,
    /// The term's value less Σ weight · score.
    pub(super) offset: f32,
    /// The chain's new state.
    pub(super) next: Option<ChainState>,
    /// Proposals made and accepted, see [`crate::mcmc::Estimate`].
    pub(super) proposals: u32,
    pub(super) accepted: u32,
}

/// The configured objective.
pub(super) fn objective(config: &LearnConfig) -> Box<dyn Objective> {
    match config.objective {
        ObjectiveKind::Emc2 => Box::new(Emc2 {
            sampler: config.sampler.clone(),
        }),
        ObjectiveKind::InfoNce => Box::new(InfoNce),
    }
}

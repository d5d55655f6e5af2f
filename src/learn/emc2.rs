//! The global contrastive loss (Yau et al. 2024): the negatives' weights come from the anchor's Markov chain.
//! Must never know: embeddings, where chains are kept.

use super::objective::{Objective, Term};
use crate::mcmc::{self, SamplerConfig, Visit};

/// EMC². The loss it reports is the one whose gradient is taken, −β φ(x)·ψ(y) + Σ w β φ(x)·ψ(z): near 0 and no measure of progress.
pub(super) struct Emc2 {
    pub(super) sampler: SamplerConfig,
}

impl Objective for Emc2 {
    fn has_chains(&self) -> bool {
        true
    }

    fn term(&self, _position: usize, visit: &Visit<'_>) -> Option<Term> {
        let estimate = mcmc::visit(&self.sampler, visit)?;
        Some(Term {
            weights: estimate.weights,
            carried: estimate.carried,
            offset: 0.0,
            next: Some(estimate.next),
            proposals: estimate.proposals,
            accepted: estimate.accepted,
        })
    }
}

//! The global contrastive loss (Yau et al. 2024): the negatives' weights come from the anchor's Markov chain.
//! Must never know: embeddings, where chains are kept.

use super::{
    LearnConfig, LearnError, Scores,
    anchor::Anchor,
    carried,
    objective::{Objective, Outside, Term},
    seating::Seating,
};
use kith_mcmc::{ChainTable, PairGraph};

/// EMC². The loss it reports is the one whose gradient is taken, −β φ(x)·ψ(y) + Σ w β φ(x)·ψ(z): near 0 and no measure of progress.
pub(super) struct Emc2<'a> {
    pub(super) config: &'a LearnConfig,
    pub(super) table: &'a ChainTable,
}

impl Objective for Emc2<'_> {
    fn chains(&self) -> Option<&ChainTable> {
        Some(self.table)
    }

    /// With refreshed scores, all that chains stand on.
    fn outside(&self, seating: &Seating, _graph: &PairGraph) -> Result<Outside, LearnError> {
        Ok(match self.config.scores {
            Scores::Stored => Outside::default(),
            Scores::Refreshed => Outside {
                images: seating.outside(),
                with_gradient: !carried::chooses(self.config),
            },
        })
    }

    fn term(&self, anchor: &Anchor<'_>) -> Option<Term> {
        let mut estimate = kith_mcmc::visit(&self.config.sampler, &anchor.visit)?;
        let weight = Some(estimate.carried).filter(|weight| *weight > 0.0);
        // The state is another slot than the one that stands in the batch, and a member of its own; their image and its view are one.
        estimate
            .weights
            .extend(anchor.chain_shared_row().zip(weight));
        Some(Term {
            weights: estimate.weights,
            outside: anchor.chain_outside().zip(weight).into_iter().collect(),
            next: Some(estimate.next),
            proposals: estimate.proposals,
            accepted: estimate.accepted,
            ..Term::default()
        })
    }

    fn factors(
        &self,
        seeds: [u64; 2],
        seating: &Seating,
        terms: &[Option<Term>],
    ) -> Option<Vec<f32>> {
        carried::chooses(self.config).then(|| carried::factors(self.config, seeds, seating, terms))
    }
}

//! EMC², the global contrastive loss by Markov chains (Yau et al. 2024).

use super::importance_weights;
use crate::{
    LearnConfig, LearnError, Scores,
    anchor::Anchor,
    batch_layout::BatchLayout,
    objective::{ExtraImages, NegativeTerm, Objective},
};
use kith_mcmc::{ChainState, ChainTable, PairGraph};

/// The weights of an anchor's negatives come from its chain.
///
/// The reported loss is the one whose gradient is taken, −β φ(x)·ψ(y) + Σ w β φ(x)·ψ(z). It is near 0 and does not measure progress.
pub(super) struct Emc2<'a> {
    pub(super) config: &'a LearnConfig,
    pub(super) table: &'a ChainTable,
}

impl Objective for Emc2<'_> {
    fn chains(&self) -> Option<&ChainTable> {
        Some(self.table)
    }

    /// With refreshed scores, the images of all chain states.
    fn extra_images(
        &self,
        layout: &BatchLayout,
        _graph: &PairGraph,
    ) -> Result<ExtraImages, LearnError> {
        Ok(match self.config.scores {
            Scores::Stored => ExtraImages::default(),
            Scores::Refreshed => ExtraImages {
                images: layout.images_outside(),
                with_gradient: !importance_weights::are_random(self.config),
            },
        })
    }

    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let mut estimate = kith_mcmc::visit(&self.config.sampler, &anchor.visit)?;
        let age = |state: ChainState| anchor.visit.step.saturating_sub(state.step);
        let weight = Some(estimate.carried).filter(|weight| *weight > 0.0);
        // The state's slot and the slot in the batch are two members of the softmax, with one image and thus one view.
        estimate
            .weights
            .extend(anchor.chain_shared_row().zip(weight));
        Some(NegativeTerm {
            weights: estimate.weights,
            outside: anchor
                .chain_image_outside()
                .zip(weight)
                .into_iter()
                .collect(),
            next: Some(estimate.next),
            proposals: estimate.proposals,
            accepted: estimate.accepted,
            age: anchor.visit.carried.map(|carried| age(carried.state)),
            ..NegativeTerm::default()
        })
    }

    fn importance_weights(
        &self,
        seeds: [u64; 2],
        layout: &BatchLayout,
        terms: &[Option<NegativeTerm>],
    ) -> Option<Vec<f32>> {
        importance_weights::are_random(self.config)
            .then(|| importance_weights::importance_weights(self.config, seeds, layout, terms))
    }
}

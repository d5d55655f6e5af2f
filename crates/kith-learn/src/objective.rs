//! The interface between a step and its objective: one anchor's candidates in, the weights of its negatives and its next state out.

use rayon::prelude::*;

use super::{
    LearnError, Prototypes,
    anchor::{Anchor, StepScores},
    batch_layout::BatchLayout,
};
use kith_mcmc::{ChainState, ChainTable, PairGraph, SidedImage};

/// A loss of the form mean over anchors of −(score of the positive) + (a term with the gradient Σ weight · ∇ score).
pub(super) trait Objective: Sync {
    /// The anchors' Markov chains, if the objective has any.
    fn chains(&self) -> Option<&ChainTable> {
        None
    }

    /// The images outside the batch that must be encoded before the terms are computed.
    fn extra_images(
        &self,
        _layout: &BatchLayout,
        _graph: &PairGraph,
    ) -> Result<ExtraImages, LearnError> {
        Ok(ExtraImages::default())
    }

    /// The negative term of one anchor, whose positive is at `position ^ 1` of the batch.
    /// Returns `None` if there is no candidate: the anchor then takes no part in the step.
    ///
    /// An objective whose terms depend on all anchors has [`Objective::negative_terms`] instead, and gives no weight to images outside the batch.
    fn negative_term(&self, _anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        None
    }

    /// The negative terms of all anchors.
    fn negative_terms(&self, step: StepScores<'_>) -> Terms {
        let anchors = (0..step.layout.slots.len()).into_par_iter();
        let terms = anchors.map(|anchor| self.negative_term(&Anchor::new(step, anchor)));
        Terms {
            terms: terms.collect(),
            prototypes: None,
        }
    }

    /// For each anchor a random factor of mean 1 on its weights outside the batch. Images whose factors are all 0 are not encoded.
    /// `None` stands for factors of 1. `seeds` are the run's seed and the step.
    fn importance_weights(
        &self,
        _seeds: [u64; 2],
        _layout: &BatchLayout,
        _terms: &[Option<NegativeTerm>],
    ) -> Option<Vec<f32>> {
        None
    }

    /// Whether later steps use the embeddings of this step.
    fn keeps_vectors(&self) -> bool {
        false
    }
}

/// The terms of a step.
pub(super) struct Terms {
    /// `[slots]`: see [`Objective::negative_term`].
    pub(super) terms: Vec<Option<NegativeTerm>>,
    /// What the step makes of the network of `neuclip`.
    pub(super) prototypes: Option<Prototypes>,
}

/// Images to encode before the terms are computed.
#[derive(Debug, Default)]
pub(super) struct ExtraImages {
    /// Each image once.
    pub(super) images: Vec<SidedImage>,
    /// Whether all of them will have a gradient: they are then encoded once, together with the batch.
    pub(super) with_gradient: bool,
}

/// The negative term of an anchor's loss.
#[derive(Clone, Debug, Default)]
pub(super) struct NegativeTerm {
    /// (position in the batch, weight). The weights are constants in the gradient; those of further positives are below 0.
    pub(super) weights: Vec<(usize, f32)>,
    /// (image outside the batch, weight).
    pub(super) outside: Vec<(SidedImage, f32)>,
    /// The term's value − Σ weight · score.
    pub(super) offset: f32,
    /// The anchor's new state.
    pub(super) next: Option<ChainState>,
    /// See [`kith_mcmc::Estimate::proposals`].
    pub(super) proposals: u32,
    /// See [`kith_mcmc::Estimate::accepted`].
    pub(super) accepted: u32,
    /// Steps since the score of the state that the visit started from was taken; `None`: it started without one.
    pub(super) age: Option<u32>,
}

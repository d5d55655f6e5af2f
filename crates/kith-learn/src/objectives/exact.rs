//! The exact global contrastive loss for the anchors of a batch. Each step encodes every image, so it suits small sets only.

use crate::{
    LearnError,
    anchor::Anchor,
    batch_layout::BatchLayout,
    objective::{ExtraImages, NegativeTerm, Objective},
    softmax::Softmax,
};
use kith_mcmc::PairGraph;

/// −(score of the positive) + ln Σ exp(score) over all images that are no known positives, each once and by one view of this step. An image
/// with several slots in the batch counts by the mean over them.
pub(super) struct Exact {
    pub(super) max_images: usize,
}

impl Objective for Exact {
    /// All images that the batch does not contain.
    fn extra_images(
        &self,
        layout: &BatchLayout,
        graph: &PairGraph,
    ) -> Result<ExtraImages, LearnError> {
        let (all, max) = (graph.sided_images(), self.max_images);
        let images = all.len();
        if images > max {
            return Err(LearnError::TooManyImages { images, max });
        }
        let images = all.into_iter().filter(|image| !layout.contains(*image));
        Ok(ExtraImages {
            images: images.collect(),
            with_gradient: true,
        })
    }

    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let members: Vec<usize> = anchor.candidates().collect();
        let others: Vec<_> = anchor
            .scored_outside()
            .filter(|(image, _)| anchor.admits(*image))
            .collect();
        let within = members
            .iter()
            .map(|member| (anchor.visit.scores[*member], anchor.log_repeats(*member)));
        let without = others.iter().map(|(_, score)| (*score, 0.0));
        let all: Vec<(f64, f64)> = within
            .chain(without)
            .map(|(score, repeats)| (f64::from(score), f64::from(score - repeats)))
            .collect();
        let logs: Vec<f64> = all.iter().map(|(_, log)| *log).collect();
        let softmax = Softmax::new(&logs)?;
        let offset: f64 = softmax
            .weights
            .iter()
            .zip(&all)
            .map(|(weight, (score, _))| weight * (softmax.log_sum - score))
            .sum();
        let mut weights = softmax.weights.iter().map(|weight| *weight as f32);
        Some(NegativeTerm {
            weights: members.iter().copied().zip(weights.by_ref()).collect(),
            outside: others
                .iter()
                .map(|(image, _)| *image)
                .zip(weights)
                .collect(),
            offset: offset as f32,
            ..NegativeTerm::default()
        })
    }
}

//! The global loss's own gradient for the anchors of a batch: every image is encoded in every step. For small sets.
//! Must never know: chains, where views come from.

use super::{
    LearnError,
    anchor::Anchor,
    objective::{Objective, Outside, Softmax, Term},
    seating::Seating,
};
use kith_mcmc::PairGraph;

/// −(score of the positive) + ln Σ exp(score) over all images that are no known positives, each once and by one view of this step. An image
/// that stands in the batch more than once counts by the mean over its slots there.
pub(super) struct Exact {
    pub(super) most_images: usize,
}

impl Objective for Exact {
    fn outside(&self, seating: &Seating, graph: &PairGraph) -> Result<Outside, LearnError> {
        let (images, most) = (graph.images(), self.most_images);
        if images > most {
            return Err(LearnError::TooManyImages { images, most });
        }
        let images = graph
            .image_keys()
            .into_iter()
            .filter(|image| !seating.holds(*image));
        Ok(Outside {
            images: images.collect(),
            with_gradient: true,
        })
    }

    fn term(&self, anchor: &Anchor<'_>) -> Option<Term> {
        let members: Vec<usize> = anchor.candidates().collect();
        let others: Vec<_> = anchor
            .scored()
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
        let softmax = Softmax::of(&logs)?;
        let offset: f64 = softmax
            .weights
            .iter()
            .zip(&all)
            .map(|(weight, (score, _))| weight * (softmax.log_sum - score))
            .sum();
        let mut weights = softmax.weights.iter().map(|weight| *weight as f32);
        Some(Term {
            weights: members.iter().copied().zip(weights.by_ref()).collect(),
            outside: others
                .iter()
                .map(|(image, _)| *image)
                .zip(weights)
                .collect(),
            offset: offset as f32,
            ..Term::default()
        })
    }
}

//! InfoNCE, the softmax over the batch with the positive in the denominator (van den Oord et al. 2018; NT-Xent in SimCLR, Chen et al. 2020).

use crate::{
    anchor::Anchor,
    objective::{NegativeTerm, Objective},
    softmax::Softmax,
};

/// The baseline: the masks and means of the other objectives, and no negative from outside the batch.
pub(super) struct InfoNce;

impl Objective for InfoNce {
    /// ln Σ exp(score) over the positive and the unmasked slots. Its gradient is the softmax-weighted sum of the scores' gradients; its
    /// value is the weighted sum of the scores plus the softmax's entropy.
    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let positive = anchor.position ^ 1;
        let members: Vec<usize> = std::iter::once(positive)
            .chain(anchor.candidates())
            .collect();
        if members.len() == 1 {
            return None;
        }
        let scores: Vec<f64> = members
            .iter()
            .map(|member| f64::from(anchor.visit.scores[*member]))
            .collect();
        let softmax = Softmax::new(&scores)?;
        let offset: f64 = softmax
            .weights
            .iter()
            .zip(&scores)
            .map(|(weight, score)| weight * (softmax.log_sum - score))
            .sum();
        let weights = softmax.weights.iter().map(|weight| *weight as f32);
        Some(NegativeTerm {
            weights: members.into_iter().zip(weights).collect(),
            offset: offset as f32,
            ..NegativeTerm::default()
        })
    }
}

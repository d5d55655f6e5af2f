//! InfoNCE (van den Oord et al. 2018; NT-Xent in SimCLR, Chen et al. 2020): the softmax over the batch, the positive in the denominator.
//! Must never know: chains. The baseline: same masks, same means, nothing carried.

use super::{
    anchor::Anchor,
    objective::{Objective, Softmax, Term},
};

pub(super) struct InfoNce;

impl Objective for InfoNce {
    /// ln Σ exp(score) over the positive and the unmasked: its gradient is the softmax-weighted sum of the scores' gradients, and it
    /// differs from the weighted sum of the scores by the softmax's entropy.
    fn term(&self, anchor: &Anchor<'_>) -> Option<Term> {
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
        let softmax = Softmax::of(&scores)?;
        let offset: f64 = softmax
            .weights
            .iter()
            .zip(&scores)
            .map(|(weight, score)| weight * (softmax.log_sum - score))
            .sum();
        let weights = softmax.weights.iter().map(|weight| *weight as f32);
        Some(Term {
            weights: members.into_iter().zip(weights).collect(),
            offset: offset as f32,
            ..Term::default()
        })
    }
}

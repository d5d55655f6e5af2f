//! InfoNCE (van den Oord et al. 2018; NT-Xent in SimCLR, Chen et al. 2020): the softmax over the batch, the positive in the denominator.
//! Must never know: chains. The baseline: same masks, same means, nothing carried.

use super::objective::{Objective, Term};
use crate::mcmc::Visit;

pub(super) struct InfoNce;

impl Objective for InfoNce {
    fn has_chains(&self) -> bool {
        false
    }

    /// ln Σ exp(score) over the positive and the unmasked: its gradient is the softmax-weighted sum of the scores' gradients, and it
    /// differs from the weighted sum of the scores by the softmax's entropy.
    fn term(&self, position: usize, visit: &Visit<'_>) -> Option<Term> {
        let candidates = (0..visit.slots.len()).filter(|other| !visit.masked[*other]);
        let members: Vec<usize> = std::iter::once(position ^ 1).chain(candidates).collect();
        if members.len() == 1 {
            return None;
        }
        let largest = members
            .iter()
            .map(|member| visit.scores[*member])
            .fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f32> = members
            .iter()
            .map(|member| (visit.scores[*member] - largest).exp())
            .collect();
        let sum: f32 = exponentials.iter().sum();
        let weights: Vec<(usize, f32)> = members
            .iter()
            .zip(&exponentials)
            .map(|(member, e)| (*member, e / sum))
            .collect();
        let weighted: f32 = weights
            .iter()
            .map(|(member, weight)| weight * (visit.scores[*member] - largest))
            .sum();
        Some(Term {
            weights,
            carried: 0.0,
            offset: sum.ln() - weighted,
            next: None,
            proposals: 0,
            accepted: 0,
        })
    }
}

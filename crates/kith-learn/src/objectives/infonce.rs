//! InfoNCE, the softmax over the batch with the positives in the denominator (van den Oord et al. 2018; NT-Xent in SimCLR, Chen et al. 2020).
//! The pairs of one group are positives of each other (the supervised contrastive loss, Khosla et al. 2020).

use crate::{
    anchor::Anchor,
    objective::{NegativeTerm, Objective},
    softmax::Softmax,
};

/// The baseline: the masks and means of the other objectives, and no negative from outside the batch.
pub(super) struct InfoNce;

impl Objective for InfoNce {
    /// ln Σ exp(score) over the positives and the unmasked slots. Its gradient is the softmax-weighted sum of the scores' gradients; its
    /// value is the weighted sum of the scores plus the softmax's entropy. The mean score of the positives replaces that of the partner.
    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let positives = anchor.positives();
        let mut members = positives.clone();
        members.extend(anchor.candidates());
        if members.len() == positives.len() {
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
        let mut weights: Vec<(usize, f32)> = members.into_iter().zip(weights).collect();
        // The step subtracts the partner's score. The partner keeps a share of it, and the other positives take theirs.
        let share = 1.0 / positives.len() as f32;
        weights[0].1 += 1.0 - share;
        let others = &mut weights[1..positives.len()];
        others.iter_mut().for_each(|(_, weight)| *weight -= share);
        Some(NegativeTerm {
            weights,
            offset: offset as f32,
            ..NegativeTerm::default()
        })
    }
}

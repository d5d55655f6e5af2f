//! What a batch says of an anchor's normaliser, and the weights of the batch's negatives under an estimate of it. SogCLR, SCENT and NeuCLIP
//! differ in that estimate alone.

use crate::{
    anchor::Anchor,
    objective::NegativeTerm,
    softmax::{Softmax, log_ratio},
};

/// An anchor's negatives in the batch.
pub(super) struct BatchMean {
    members: Vec<usize>,
    scores: Vec<f64>,
    softmax: Softmax,
    /// ln of the mean of exp(score) / repetition over the negatives, an unbiased estimate of the mean over the set but for the logarithm.
    pub(super) log_mean: f64,
}

impl BatchMean {
    /// The negatives of `anchor`; `None` if there are none.
    pub(super) fn new(anchor: &Anchor<'_>) -> Option<Self> {
        let members: Vec<usize> = anchor.candidates().collect();
        let scores: Vec<f64> = members
            .iter()
            .map(|member| f64::from(anchor.visit.scores[*member]))
            .collect();
        let log_weights: Vec<f64> = members
            .iter()
            .zip(&scores)
            .map(|(member, score)| score - anchor.log_repetition(*member))
            .collect();
        let softmax = Softmax::new(&log_weights)?;
        let log_mean = softmax.log_mean();
        Some(Self {
            members,
            scores,
            softmax,
            log_mean,
        })
    }

    /// The term in which a negative's weight is exp(score) / (repetition · number of negatives · exp(`log_normalizer`)), and whose value is `value`.
    pub(super) fn term(self, log_normalizer: f64, value: f64) -> NegativeTerm {
        let ratio = log_ratio(self.log_mean, log_normalizer).exp();
        let weights = self.softmax.weights.iter().map(|weight| weight * ratio);
        let weighted: f64 = weights.clone().zip(&self.scores).map(|(w, s)| w * s).sum();
        NegativeTerm {
            weights: self
                .members
                .into_iter()
                .zip(weights.map(|weight| weight as f32))
                .collect(),
            offset: (value - weighted) as f32,
            ..NegativeTerm::default()
        }
    }
}

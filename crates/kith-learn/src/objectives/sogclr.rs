//! SogCLR, the global contrastive loss with a moving average for each anchor in place of the sum over the set (Yuan et al. 2022).

use crate::{
    anchor::Anchor,
    objective::{NegativeTerm, Objective},
    softmax::{Softmax, log_add_exp},
};
use kith_mcmc::{ChainState, ChainTable};

/// Each anchor's average u follows g, the mean of exp(score) over its negatives in the batch: u ← (1 − γ) u + γ g. So γ is the weight of
/// the new value, as in the paper and its authors' code; a first visit sets u = g. A negative's weight is
/// exp(score) / (number of negatives · u), and the weights sum to g / u. The reported loss is ln u − (score of the positive).
///
/// The table holds ln u in place of a chain's log score, which neither overflows nor underflows, and the anchor's own slot in place of a
/// negative.
pub(super) struct SogClr<'a> {
    pub(super) gamma: f32,
    pub(super) table: &'a ChainTable,
}

impl Objective for SogClr<'_> {
    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
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
        let log_g = softmax.log_sum - (members.len() as f64).ln();
        let before = self
            .table
            .get(anchor.visit.anchor)
            .filter(|state| state.log_score.is_finite());
        let log_u = before.map_or(log_g, |state| {
            self.follow(f64::from(state.log_score), log_g)
        });
        let weights = softmax
            .weights
            .iter()
            .map(|weight| weight * (log_g - log_u).exp());
        let weighted: f64 = weights.clone().zip(&scores).map(|(w, s)| w * s).sum();
        Some(NegativeTerm {
            weights: members
                .into_iter()
                .zip(weights.map(|weight| weight as f32))
                .collect(),
            offset: (log_u - weighted) as f32,
            next: Some(ChainState {
                negative: anchor.visit.anchor,
                log_score: log_u as f32,
                step: anchor.visit.step,
                visits: before.map_or(0, |state| state.visits).saturating_add(1),
                visits_since_move: 0,
            }),
            ..NegativeTerm::default()
        })
    }
}

impl SogClr<'_> {
    /// ln((1 − γ) u + γ g).
    fn follow(&self, log_u: f64, log_g: f64) -> f64 {
        let gamma = f64::from(self.gamma);
        log_add_exp((1.0 - gamma).ln() + log_u, gamma.ln() + log_g)
    }
}

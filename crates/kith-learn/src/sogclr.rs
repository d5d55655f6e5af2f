//! SogCLR (Yuan et al. 2022): the global loss with a moving average, one for each anchor, in place of the sum over the set.
//! Must never know: embeddings, where averages are kept.

use super::{
    anchor::Anchor,
    objective::{Objective, Softmax, Term},
};
use kith_mcmc::{ChainState, ChainTable};

/// Each anchor's average u follows g, the batch's mean of exp(score) over its negatives: u ← (1 − γ) u + γ g, so that γ weighs what is new,
/// as in the paper and its authors' code; a first visit sets u = g. A negative's weight is exp(score) / (number of negatives · u): the
/// weights sum to g / u. The loss it reports is ln u less the positive's score.
///
/// The table holds ln u in the place of a chain's log score, so that no score is too large or too small; a state stands on the anchor's own
/// slot.
pub(super) struct SogClr<'a> {
    pub(super) gamma: f32,
    pub(super) table: &'a ChainTable,
}

impl Objective for SogClr<'_> {
    fn term(&self, anchor: &Anchor<'_>) -> Option<Term> {
        let members: Vec<usize> = anchor.candidates().collect();
        let scores: Vec<f64> = members
            .iter()
            .map(|member| f64::from(anchor.visit.scores[*member]))
            .collect();
        let log_weights: Vec<f64> = members
            .iter()
            .zip(&scores)
            .map(|(member, score)| score - f64::from(anchor.visit.slots[*member].log_degree))
            .collect();
        let softmax = Softmax::of(&log_weights)?;
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
        Some(Term {
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
            ..Term::default()
        })
    }
}

impl SogClr<'_> {
    /// ln((1 − γ) u + γ g).
    fn follow(&self, log_u: f64, log_g: f64) -> f64 {
        let gamma = f64::from(self.gamma);
        let (old, new) = ((1.0 - gamma).ln() + log_u, gamma.ln() + log_g);
        let (large, small) = (old.max(new), old.min(new));
        large + (small - large).exp().ln_1p()
    }
}

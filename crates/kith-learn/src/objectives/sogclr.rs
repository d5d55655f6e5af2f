//! SogCLR, the global contrastive loss with a moving average for each anchor in place of the sum over the set (Yuan et al. 2022).

use super::{batch_mean::BatchMean, normalizers::Normalizers};
use crate::{
    anchor::Anchor,
    objective::{NegativeTerm, Objective},
    softmax::log_add_exp,
};
use kith_mcmc::ChainTable;

/// Each anchor's average u follows g, the mean of exp(score) over its negatives in the batch: u ← (1 − γ) u + γ g. So γ is the weight of
/// the new value, as in the paper and its authors' code; a first visit sets u = g. A negative's weight is
/// exp(score) / (number of negatives · u), and the weights sum to g / u. The reported loss is ln u − (score of the positive).
pub(super) struct SogClr<'a> {
    pub(super) gamma: f32,
    pub(super) table: &'a ChainTable,
}

impl Objective for SogClr<'_> {
    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let batch = BatchMean::new(anchor)?;
        let normalizers = Normalizers(self.table);
        let log_g = batch.log_mean;
        let before = normalizers.get(anchor);
        let log_u = before.map_or(log_g, |log_u| self.follow(log_u, log_g));
        Some(NegativeTerm {
            next: Some(normalizers.next(anchor, log_u)),
            ..batch.term(log_u, log_u)
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

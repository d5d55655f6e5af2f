//! SCENT, the global contrastive loss as a joint minimum over the encoder and a dual variable for each anchor (Wei, Zhou, Wang, Lin and Yang
//! 2026, arXiv 2602.02877).

use super::{batch_mean::BatchMean, normalizers::Normalizers};
use crate::{
    anchor::Anchor,
    objective::{NegativeTerm, Objective},
    softmax::{log_add_exp, log_ratio},
};
use kith_mcmc::ChainTable;

/// Since ln m = min over ν of (exp(−ν) m + ν − 1), the loss is the minimum, over the encoder and a ν for each anchor, of the mean of
/// exp(−ν) · E exp(score) + ν − 1 − (score of the positive). This is linear in the mean over the set.
///
/// A visit moves ν by stochastic proximal mirror descent: the new ν minimises exp(z − ν) + ν + D(ν, ν_t) / α, where exp(z) is the batch's mean
/// of exp(score) and D the Bregman divergence of exp(−ν). The minimum has a closed form ([`dual_step`]); a first visit sets ν = z. A negative's
/// weight is exp(score − ν) / (number of negatives) under the new ν, as in the authors' code: under the old one, which does not depend on the batch,
/// both bias and variance are larger (docs/emc2.md). The reported loss is the batch's estimate of the joint objective.
pub(super) struct Scent<'a> {
    /// α.
    pub(super) step_size: f32,
    pub(super) table: &'a ChainTable,
}

impl Objective for Scent<'_> {
    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let batch = BatchMean::new(anchor)?;
        let normalizers = Normalizers(self.table);
        let z = batch.log_mean;
        let before = normalizers.get(anchor);
        let nu = before.map_or(z, |nu| dual_step(nu, z, f64::from(self.step_size)));
        let value = log_ratio(z, nu).exp() + nu - 1.0;
        Some(NegativeTerm {
            next: Some(normalizers.next(anchor, nu)),
            ..batch.term(nu, value)
        })
    }
}

/// The ν that minimises exp(z − ν) + ν + (exp(−ν) − exp(−ν_t) + exp(−ν_t) (ν − ν_t)) / α. The derivative is 0 where
/// exp(−ν) (exp(z) + 1/α) = 1 + exp(−ν_t) / α, so ν = ν_t + ln((1 + α exp(z)) / (1 + α exp(ν_t))).
///
/// So exp(ν) is a moving average, exp(ν) = (1 − γ) exp(ν_t) + γ exp(z), whose γ = α exp(ν_t) / (1 + α exp(ν_t)) is large where ν_t is.
fn dual_step(nu: f64, z: f64, step_size: f64) -> f64 {
    let log_one_plus = |log: f64| log_add_exp(0.0, step_size.ln() + log);
    nu + log_one_plus(z) - log_one_plus(nu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_step_minimises_the_proximal_objective() {
        for (nu, z, step_size) in [(0.3_f64, 1.7, 0.5), (4.0, -1.0, 0.01), (-2.0, 6.0, 3.0)] {
            let objective = |at: f64| {
                let divergence = (-at).exp() - (-nu).exp() + (-nu).exp() * (at - nu);
                (z - at).exp() + at + divergence / step_size
            };
            let after = dual_step(nu, z, step_size);
            // Strictly quasi-convex: the only stationary point is the minimum.
            let slope = (objective(after + 1e-5) - objective(after - 1e-5)) / 2e-5;
            assert!(slope.abs() < 1e-6, "{nu} {z} {step_size}: {slope}");
            assert!(objective(after) < objective(nu).min(objective(z)) + 1e-12);
            let gamma = step_size * nu.exp() / (1.0 + step_size * nu.exp());
            let average = ((1.0 - gamma) * nu.exp() + gamma * z.exp()).ln();
            assert!((after - average).abs() < 1e-12);
        }
    }

    #[test]
    fn dual_steps_from_far_off_are_finite_and_go_towards_what_the_batch_says() {
        for (nu, z) in [(1e4, -1e4), (-1e4, 1e4), (1e4, 0.0), (0.0, 1e4)] {
            let after = dual_step(nu, z, 0.1);
            let between = (nu.min(z)..=nu.max(z)).contains(&after);
            assert!(between && after != nu, "{nu} {z}: {after}");
        }
    }
}

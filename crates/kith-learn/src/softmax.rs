//! Sums of exponentials that are given by their logarithms. The largest is subtracted first, so that nothing overflows.

/// Largest ln of the sum of an anchor's weights. An estimate that is so far below what the batch says is wrong; beyond it the norm of a
/// gradient could overflow, and a step that is not finite is skipped, over and over.
const MAX_LOG_RATIO: f64 = 20.0;

/// A softmax and its normaliser.
pub(super) struct Softmax {
    /// exp(log) / Σ exp(log); they sum to 1.
    pub(super) weights: Vec<f64>,
    /// ln Σ exp(log).
    pub(super) log_sum: f64,
}

impl Softmax {
    /// The softmax of `logs`; `None` if there are none.
    pub(super) fn new(logs: &[f64]) -> Option<Self> {
        let largest = largest(logs)?;
        let mut weights: Vec<f64> = scaled(logs, largest).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Some(Self {
            weights,
            log_sum: largest + sum.ln(),
        })
    }

    /// ln of the mean of exp(log).
    pub(super) fn log_mean(&self) -> f64 {
        self.log_sum - (self.weights.len() as f64).ln()
    }
}

/// ln Σ exp(log); `None` if there are no `logs`.
pub(super) fn log_sum_exp(logs: &[f64]) -> Option<f64> {
    let largest = largest(logs)?;
    Some(largest + scaled(logs, largest).sum::<f64>().ln())
}

/// ln of the mean of exp(log); `None` if there are no `logs`.
pub(super) fn log_mean_exp(logs: &[f64]) -> Option<f64> {
    let largest = largest(logs)?;
    Some(largest + (scaled(logs, largest).sum::<f64>() / logs.len() as f64).ln())
}

/// ln(exp(a) + exp(b)).
pub(super) fn log_add_exp(a: f64, b: f64) -> f64 {
    let (large, small) = (a.max(b), a.min(b));
    large + (small - large).exp().ln_1p()
}

/// ln of the sum of the weights of a batch whose mean is exp(`log_mean`), under the normaliser exp(`log_normalizer`).
pub(super) fn log_ratio(log_mean: f64, log_normalizer: f64) -> f64 {
    (log_mean - log_normalizer).min(MAX_LOG_RATIO)
}

fn largest(logs: &[f64]) -> Option<f64> {
    logs.iter().copied().reduce(f64::max)
}

/// exp(log − largest).
fn scaled(logs: &[f64], largest: f64) -> impl Iterator<Item = f64> {
    logs.iter().map(move |log| (log - largest).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_large_logarithms_are_finite_and_agree() {
        let logs = [1e4, 1e4 + 1.0, -1e4];
        let softmax = Softmax::new(&logs).unwrap();
        let expected = 1e4 + (1.0 + 1_f64.exp()).ln();
        // A few roundings of an f64 near 10⁴.
        assert!((softmax.log_sum - expected).abs() < 1e-11);
        assert_eq!(log_sum_exp(&logs), Some(softmax.log_sum));
        assert!((log_add_exp(logs[0], logs[1]) - expected).abs() < 1e-11);
        assert!((log_mean_exp(&logs).unwrap() - (expected - 3_f64.ln())).abs() < 1e-11);
        assert!((softmax.weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn there_is_no_softmax_of_nothing() {
        assert!(Softmax::new(&[]).is_none());
        assert_eq!((log_sum_exp(&[]), log_mean_exp(&[])), (None, None));
    }
}

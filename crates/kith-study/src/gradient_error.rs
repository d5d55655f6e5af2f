//! The error of gradient estimates: bias, variance and direction.

use super::Statistics;

/// The error of several estimates `g` of an exact gradient `∇L`.
pub(super) struct GradientError {
    /// Mean of ‖g − ∇L‖².
    pub(super) total: f64,
    /// ‖E g − ∇L‖² without what the noise of the estimates adds to it; at least 0.
    pub(super) bias: f64,
    /// E ‖g − E g‖².
    pub(super) variance: f64,
    /// Mean cosine of g and ∇L.
    pub(super) cosine: f64,
}

impl GradientError {
    /// From one or more estimates. A single one has no variance and counts as bias.
    pub(super) fn new(exact: &[f32], estimates: &[Vec<f32>]) -> Self {
        let count = estimates.len() as f64;
        let each = |value: &dyn Fn(&Vec<f32>) -> f64| {
            Statistics::new(&estimates.iter().map(value).collect::<Vec<_>>()).mean
        };
        let total = each(&|estimate| squared_distance(estimate, exact));
        let mean: Vec<f32> = (0..exact.len())
            .map(|index| each(&|estimate| f64::from(estimate[index])) as f32)
            .collect();
        let around = each(&|estimate| squared_distance(estimate, &mean));
        let variance = around * count / (count - 1.0).max(1.0);
        Self {
            total,
            bias: (squared_distance(&mean, exact) - variance / count).max(0.0),
            variance,
            cosine: each(&|estimate| cosine(estimate, exact)),
        }
    }
}

/// ‖a − b‖².
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// ‖a‖².
pub(super) fn squared_norm(a: &[f32]) -> f64 {
    a.iter().map(|value| f64::from(*value).powi(2)).sum()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    product
        / (squared_norm(a) * squared_norm(b))
            .sqrt()
            .max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_bias_and_variance() {
        // Estimates (1 ± 1, 2) of (0, 0): bias² 1 + 4, variance 2 as n − 1 counts it, of which half lies in the mean of two.
        let found = GradientError::new(&[0.0, 0.0], &[vec![2.0, 2.0], vec![0.0, 2.0]]);
        assert_eq!(found.total, 6.0);
        assert_eq!(found.variance, 2.0);
        assert_eq!(found.bias, 4.0);
        let exact = GradientError::new(&[3.0, 4.0], &[vec![6.0, 8.0]]);
        assert!((exact.cosine - 1.0).abs() < 1e-12);
        assert_eq!((exact.total, exact.bias, exact.variance), (25.0, 25.0, 0.0));
    }
}

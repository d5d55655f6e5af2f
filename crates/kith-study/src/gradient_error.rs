//! How far gradients are from the exact one. Must never know: what they are gradients of.

use super::points::Spread;

/// What several estimates at one place say about the estimator there.
pub(super) struct Deviation {
    /// Mean of ‖g − ∇L‖².
    pub(super) error: f64,
    /// ‖E g − ∇L‖², with what the estimates' own noise adds to the square taken off; never below 0.
    pub(super) bias: f64,
    /// E ‖g − E g‖².
    pub(super) variance: f64,
    /// Mean cosine of g and ∇L.
    pub(super) cosine: f64,
}

impl Deviation {
    /// Of one or more estimates; one alone has no variance and is all bias.
    pub(super) fn of(exact: &[f32], estimates: &[Vec<f32>]) -> Self {
        let count = estimates.len() as f64;
        let each = |value: &dyn Fn(&Vec<f32>) -> f64| {
            Spread::of(&estimates.iter().map(value).collect::<Vec<_>>()).mean
        };
        let error = each(&|estimate| distance(estimate, exact));
        let mean: Vec<f32> = (0..exact.len())
            .map(|place| each(&|estimate| f64::from(estimate[place])) as f32)
            .collect();
        let around = each(&|estimate| distance(estimate, &mean));
        let variance = around * count / (count - 1.0).max(1.0);
        Self {
            error,
            bias: (distance(&mean, exact) - variance / count).max(0.0),
            variance,
            cosine: each(&|estimate| cosine(estimate, exact)),
        }
    }
}

/// ‖a − b‖².
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// ‖a‖².
pub(super) fn square(a: &[f32]) -> f64 {
    a.iter().map(|value| f64::from(*value).powi(2)).sum()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    product / (square(a) * square(b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_bias_and_variance() {
        // Estimates (1 ± 1, 2) of (0, 0): bias² 1 + 4, variance 2 as n − 1 counts it, of which half lies in the mean of two.
        let found = Deviation::of(&[0.0, 0.0], &[vec![2.0, 2.0], vec![0.0, 2.0]]);
        assert_eq!(found.error, 6.0);
        assert_eq!(found.variance, 2.0);
        assert_eq!(found.bias, 4.0);
        let exact = Deviation::of(&[3.0, 4.0], &[vec![6.0, 8.0]]);
        assert!((exact.cosine - 1.0).abs() < 1e-12);
        assert_eq!((exact.error, exact.bias, exact.variance), (25.0, 25.0, 0.0));
    }
}

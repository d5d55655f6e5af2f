//! The Kolmogorov–Smirnov test of whether values are uniform on [0, 1].

/// How far values are from uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UniformTest {
    /// Largest difference of the values' cumulative share from the uniform one: 0 to 1.
    pub distance: f64,
    /// Probability that as many independent uniform values have at least this distance.
    pub p_value: f64,
}

/// Terms of the series below; the smallest argument that is summed needs fewer.
const TERMS: i32 = 100;

/// Tests values in any order, each in [0, 1]. No values have distance 0.
///
/// The p-value is Kolmogorov's limit with Stephens's (1970) correction for a finite number n: within 0.01 of the exact one from n = 10 on.
pub fn uniform_test(values: &[f64]) -> UniformTest {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let gaps = sorted.iter().enumerate().map(|(place, value)| {
        let (below, up_to) = (place as f64 / count, (place + 1) as f64 / count);
        (value - below).max(up_to - value)
    });
    let distance = gaps.fold(0.0, f64::max);
    let root = count.sqrt();
    let corrected = if values.is_empty() {
        0.0
    } else {
        (root + 0.12 + 0.11 / root) * distance
    };
    UniformTest {
        distance,
        p_value: tail(corrected),
    }
}

/// Kolmogorov's limit: 2 Σ (−1)^(k−1) exp(−2 k² x²).
fn tail(x: f64) -> f64 {
    // Below it is 1 but for 10⁻⁹, and the series converges slowly.
    if x < 0.2 {
        return 1.0;
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * x * x).exp()
    };
    (1..=TERMS).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` values whose distance is `distance`: a grid that is pushed down.
    fn pushed(count: usize, distance: f64) -> Vec<f64> {
        let at = |place: usize| ((place + 1) as f64 / count as f64 - distance).max(0.0);
        (0..count).map(at).collect()
    }

    #[test]
    fn p_values_are_those_of_the_tables() {
        // Critical values of the exact distribution (Massey 1951; Miller 1956).
        for (count, distance, p_value) in [
            (10, 0.409_25, 0.05),
            (10, 0.488_93, 0.01),
            (20, 0.294_08, 0.05),
            (100, 0.134_03, 0.05),
            (100, 0.160_81, 0.01),
        ] {
            let found = uniform_test(&pushed(count, distance));
            assert!((found.distance - distance).abs() < 1e-12, "{found:?}");
            assert!(
                (found.p_value / p_value - 1.0).abs() < 0.1,
                "{count}: {found:?}"
            );
        }
    }

    #[test]
    fn a_grid_is_uniform_and_a_point_is_not() {
        let grid: Vec<f64> = (0..50)
            .map(|place| (f64::from(place) + 0.5) / 50.0)
            .collect();
        let found = uniform_test(&grid);
        assert!(
            (found.distance - 0.01).abs() < 1e-12 && found.p_value > 0.999,
            "{found:?}"
        );
        let point = uniform_test(&[0.5; 50]);
        assert!(point.distance == 0.5 && point.p_value < 1e-9, "{point:?}");
        assert_eq!(uniform_test(&[]).p_value, 1.0);
    }
}

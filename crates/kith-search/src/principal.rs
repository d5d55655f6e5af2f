//! The two principal components of a set of vectors.

use crate::product::Product;

/// Rounds of the power iteration: enough for a start that a later method refines.
const ROUNDS: usize = 50;

/// The coordinates of each of `rows: [n, dim]` along the two directions of largest variance.
pub(crate) fn coordinates(rows: &[f32], dim: usize) -> Vec<[f32; 2]> {
    let mean = mean(rows, dim);
    let covariance = covariance(rows, &mean);
    let first = direction(&covariance, dim, None);
    let second = direction(&covariance, dim, Some(&first));
    let product = Product::default();
    let offsets = [product.of(&mean, &first), product.of(&mean, &second)];
    let coordinates = |row: &[f32]| {
        [
            product.of(row, &first) - offsets[0],
            product.of(row, &second) - offsets[1],
        ]
    };
    rows.chunks_exact(dim).map(coordinates).collect()
}

fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let count = (rows.len() / dim).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// `[dim, dim]`, not divided by the number of rows: only directions are asked for.
fn covariance(rows: &[f32], mean: &[f32]) -> Vec<f32> {
    let dim = mean.len();
    let mut sums = vec![0.0; dim * dim];
    let mut centred = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for ((centred, value), mean) in centred.iter_mut().zip(row).zip(mean) {
            *centred = value - mean;
        }
        for (sums, factor) in sums.chunks_exact_mut(dim).zip(&centred) {
            for (sum, value) in sums.iter_mut().zip(&centred) {
                *sum += factor * value;
            }
        }
    }
    sums
}

/// The direction of largest variance at a right angle to `before`, by power iteration.
fn direction(covariance: &[f32], dim: usize, before: Option<&[f32]>) -> Vec<f32> {
    let product = Product::default();
    // A start that no direction is at a right angle to, save by chance.
    let mut vector: Vec<f32> = (0..dim).map(|at| 1.0 + (at % 7) as f32 / 7.0).collect();
    for _ in 0..ROUNDS {
        if let Some(before) = before {
            let along = product.of(&vector, before);
            for (value, before) in vector.iter_mut().zip(before) {
                *value -= along * before;
            }
        }
        let norm = product.of(&vector, &vector).sqrt();
        if norm.is_nan() || norm <= f32::MIN_POSITIVE {
            // No variance is left.
            return vec![0.0; dim];
        }
        vector.iter_mut().for_each(|value| *value /= norm);
        let rows = covariance.chunks_exact(dim);
        vector = rows.map(|row| product.of(row, &vector)).collect();
    }
    let norm = product.of(&vector, &vector).sqrt().max(f32::MIN_POSITIVE);
    vector.into_iter().map(|value| value / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directions_of_largest_variance_are_found() {
        // A cloud that is long along (3, 4, 0)/5, wide along (0, 0, 1), and thin along the third direction.
        let mut rows = Vec::new();
        let mut expected = Vec::new();
        for along in -10..=10 {
            for across in -3..=3 {
                let (a, b, c) = (
                    along as f32,
                    0.5 * across as f32,
                    0.01 * ((along * across) % 3) as f32,
                );
                rows.extend([1.0 + 0.6 * a - 0.8 * c, 2.0 + 0.8 * a + 0.6 * c, 3.0 + b]);
                expected.push([a, b]);
            }
        }
        let found = coordinates(&rows, 3);
        let sign = |at: usize| (found[0][at] * expected[0][at]).signum();
        for (found, expected) in found.iter().zip(&expected) {
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let off = (sign(at) * found - expected).abs();
                assert!(off < 0.05, "{found} {expected}");
            }
        }
    }

    #[test]
    fn vectors_without_variance_lie_in_one_place() {
        assert_eq!(coordinates(&[1.0, 2.0, 1.0, 2.0], 2), [[0.0; 2]; 2]);
    }
}

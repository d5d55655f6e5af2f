//! Linear algebra beside faer's, for matrices that are computed once a checkpoint.

use std::f64::consts::TAU;

use faer::{MatRef, Side};
use kith_seed::mix;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Seed of all random rows. Another would make embeddings of the same file differ between versions of kith.
const SEED: u64 = 0x6b69_7468;

/// `count` rows of samples of N(0, 1), always the same.
pub(super) fn random_rows(size: usize, count: usize) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[SEED, size as u64]));
    let mut uniform = || (f64::from(random.next_u32()) + 0.5) / (1u64 << 32) as f64;
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
    (0..count)
        .map(|_| (0..size).map(|_| normal()).collect())
        .collect()
}

/// Gram and Schmidt's method, each row twice, which is as good as Householder's (Giraud et al. 2005). A row that depends on those before is
/// replaced by a unit vector that does not.
pub(super) fn orthonormalize(rows: &mut [Vec<f64>]) {
    for place in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(place);
        let row = &mut rest[0];
        let mut replacement = 0;
        while !orthogonalize(row, before) {
            row.fill(0.0);
            row[replacement] = 1.0;
            replacement += 1;
        }
    }
}

/// Makes `row` orthogonal to `others` and of unit length; `false`: nothing of it is left, or it is not finite.
fn orthogonalize(row: &mut [f64], others: &[Vec<f64>]) -> bool {
    let length = dot(row, row).sqrt();
    for _ in 0..2 {
        for other in others {
            let along = dot(row, other);
            row.iter_mut()
                .zip(other)
                .for_each(|(value, part)| *value -= along * part);
        }
    }
    let left = dot(row, row).sqrt();
    // A length that is not a number is no larger than anything.
    let remains = left.is_finite() && left > 1e-10 * length;
    if !remains {
        return false;
    }
    row.iter_mut().for_each(|value| *value /= left);
    true
}

/// A sum in four parts, which the compiler turns into vector instructions.
pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
    let (left, left_rest) = left.as_chunks::<4>();
    let (right, right_rest) = right.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in left.iter().zip(right) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The `count` leading eigenvectors of a symmetric matrix, one a row, largest eigenvalue first. `None`: a value is not finite. Only the lower half of
/// `matrix` is read.
pub(super) fn leading_eigenvectors(matrix: MatRef<'_, f64>, count: usize) -> Option<Vec<Vec<f64>>> {
    if !matrix.is_all_finite() {
        return None;
    }
    let decomposed = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let ascending = decomposed.U().col_iter();
    let leading = ascending.rev().take(count);
    Some(
        leading
            .map(|column| column.iter().copied().collect())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn eigenvectors_come_with_the_largest_eigenvalue_first() {
        let axes = [3.0, 9.0, 1.0, 6.0];
        let matrix = Mat::from_fn(
            4,
            4,
            |row, column| if row == column { axes[row] } else { 0.0 },
        );
        let found = leading_eigenvectors(matrix.as_ref(), 3).unwrap();
        for (row, axis) in found.iter().zip([1, 3, 0]) {
            assert!((row[axis].abs() - 1.0).abs() < 1e-12, "{row:?}");
        }
    }

    #[test]
    fn what_is_not_finite_has_no_eigenvectors() {
        for bad in [f64::NAN, f64::INFINITY] {
            let matrix = Mat::from_fn(2, 2, |row, column| if row == column { 1.0 } else { bad });
            assert_eq!(leading_eigenvectors(matrix.as_ref(), 1), None);
        }
    }
}

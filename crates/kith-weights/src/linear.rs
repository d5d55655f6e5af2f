//! Linear algebra of a few hundred dimensions, for matrices that are computed once a checkpoint. Matrices are rows of `f64`.

use std::f64::consts::TAU;

use kith_seed::mix;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Seed of all random rows. Another would make embeddings of the same file differ between versions of kith.
const SEED: u64 = 0x6b69_7468;
/// Rounds of orthogonal iteration.
const ROUNDS: usize = 40;

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

/// The lower triangular L with L Lᵀ = `matrix` (Golub & Van Loan, Matrix Computations, §4.2); only the lower half of `matrix` is read. `None`: it is
/// not positive definite, or not finite.
pub(super) fn cholesky(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for row in 0..matrix.len() {
        let (before, rest) = matrix.split_at_mut(row);
        let line = &mut rest[0];
        for (column, other) in before.iter().enumerate() {
            line[column] = (line[column] - dot(&line[..column], &other[..column])) / other[column];
        }
        let pivot = line[row] - dot(&line[..row], &line[..row]);
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        line[row] = pivot.sqrt();
        line[row + 1..].fill(0.0);
    }
    Some(matrix)
}

/// Solves L x = `values` in place, for a lower triangular L.
pub(super) fn solve_lower(lower: &[Vec<f64>], values: &mut [f64]) {
    for (row, line) in lower.iter().enumerate() {
        values[row] = (values[row] - dot(&line[..row], &values[..row])) / line[row];
    }
}

/// Solves Lᵀ x = `values` in place, for a lower triangular L.
pub(super) fn solve_lower_transposed(lower: &[Vec<f64>], values: &mut [f64]) {
    for (row, line) in lower.iter().enumerate().rev() {
        let (before, rest) = values.split_at_mut(row);
        rest[0] /= line[row];
        let solved = rest[0];
        let known = before.iter_mut().zip(line);
        known.for_each(|(value, factor)| *value -= factor * solved);
    }
}

/// The `count` leading eigenvectors of the symmetric positive semidefinite `matrix`, one a row, largest eigenvalue first, by orthogonal
/// iteration (Golub & Van Loan, §8.2.4). Neighbours may still be mixed; what the rows span together is what counts.
pub(super) fn leading_eigenvectors(matrix: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    let times = |row: &Vec<f64>| matrix.iter().map(|line| dot(line, row)).collect();
    let mut rows = random_rows(matrix.len(), count);
    orthonormalize(&mut rows);
    for _ in 0..ROUNDS {
        rows = rows.iter().map(times).collect();
        orthonormalize(&mut rows);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_factored_and_solved_for() {
        let matrix = vec![
            vec![4.0, 9.0, 9.0],
            vec![2.0, 5.0, 9.0],
            vec![-2.0, 3.0, 14.0],
        ];
        let lower = cholesky(matrix).unwrap();
        assert_eq!(lower, [[2.0, 0.0, 0.0], [1.0, 2.0, 0.0], [-1.0, 2.0, 3.0]]);
        let mut values = [2.0, 5.0, 9.0];
        solve_lower(&lower, &mut values);
        assert_eq!(values, [1.0, 2.0, 2.0]);
        let mut values = [1.0, 10.0, 6.0];
        solve_lower_transposed(&lower, &mut values);
        assert_eq!(values, [0.0, 3.0, 2.0]);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        for corner in [1.0, 0.5, f64::NAN, f64::INFINITY] {
            assert_eq!(cholesky(vec![vec![1.0, 0.0], vec![1.0, corner]]), None);
        }
    }

    #[test]
    fn eigenvectors_come_with_the_largest_eigenvalue_first() {
        let axes = [3.0, 9.0, 1.0, 6.0];
        let line = |row: usize| (0..4).map(move |at| if at == row { axes[row] } else { 0.0 });
        let matrix: Vec<Vec<f64>> = (0..4).map(|row| line(row).collect()).collect();
        for (row, axis) in leading_eigenvectors(&matrix, 3).iter().zip([1, 3, 0]) {
            // Neighbours differ by (6 / 9)^40 and less.
            assert!((row[axis].abs() - 1.0).abs() < 1e-6, "{row:?}");
        }
    }
}

//! Second moments of features, summed over pairs, and what is made of them.

use faer::{
    Accum, Mat, MatRef, Par,
    linalg::matmul::triangular::{BlockStructure, matmul},
};

/// Pairs whose products are summed together: the sums, which no cache holds, are read and written once for so many.
pub(super) const BLOCK: usize = 256;
/// One thread: a fit must leave the others to requests, and the same pairs must give the same projection.
pub(super) const ALONE: Par = Par::Seq;

/// The entries of a matrix that are computed.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Lower,
    Whole,
}

/// How many pairs were added, and what they weigh.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) pairs: usize,
    /// Sum of their weights.
    pub(super) weight: f64,
    squares: f64,
}

impl Count {
    pub(super) fn add(&mut self, weight: f64) {
        self.pairs += 1;
        self.weight += weight;
        self.squares += weight * weight;
    }

    /// Number of pairs of equal weight whose mean is as uncertain: (Σ w)² / Σ w² (Kish 1965, "Survey Sampling").
    pub(super) fn effective(&self) -> f64 {
        self.weight * self.weight / self.squares
    }
}

/// Adds to `sums` the products of the rows of `left` with those of `right`, each of as many values as `sums` has rows.
pub(super) fn add_products(sums: &mut Mat<f64>, part: Part, left: &[f64], right: &[f64]) {
    let size = sums.nrows();
    let count = left.len() / size;
    let columns = |rows| MatRef::from_column_major_slice(rows, size, count);
    let whole = BlockStructure::Rectangular;
    let structure = match part {
        Part::Lower => BlockStructure::TriangularLower,
        Part::Whole => whole,
    };
    matmul(
        sums.as_mut(),
        structure,
        Accum::Add,
        columns(left),
        whole,
        columns(right).transpose(),
        whole,
        1.0,
        ALONE,
    );
}

/// Both halves of the covariance of rows that weigh `weight` together, from the lower half of the sum of their products and their mean.
pub(super) fn covariance(products: Mat<f64>, weight: f64, mean: &[f64]) -> Mat<f64> {
    let mut covariance = products;
    for column in 0..mean.len() {
        for row in column..mean.len() {
            let value = covariance[(row, column)] / weight - mean[row] * mean[column];
            (covariance[(row, column)], covariance[(column, row)]) = (value, value);
        }
    }
    covariance
}

/// Adds what `size / 2` pairs would that differ alike in every direction, by as much as the pairs that `covariance` is of: few pairs say little.
pub(super) fn add_ridge(covariance: &mut Mat<f64>, count: &Count) {
    let trace: f64 = covariance.diagonal().column_vector().iter().sum();
    let ridge = trace * 0.5 / count.effective();
    let diagonal = covariance.diagonal_mut().column_vector_mut();
    diagonal.iter_mut().for_each(|value| *value += ridge);
}

/// Transposes a square matrix where it lies.
pub(super) fn transpose(matrix: &mut Mat<f64>) {
    for column in 0..matrix.ncols() {
        for row in 0..column {
            let (above, below) = (matrix[(row, column)], matrix[(column, row)]);
            (matrix[(row, column)], matrix[(column, row)]) = (below, above);
        }
    }
}

/// Whether features can be summed: `size` finite values.
pub(super) fn is_usable(features: &[f32], size: usize) -> bool {
    features.len() == size && features.iter().all(|value| value.is_finite())
}

/// Whether a pair can count by `weight`.
pub(super) fn is_weight(weight: f64) -> bool {
    weight > 0.0 && weight.is_finite()
}

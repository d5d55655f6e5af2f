//! Arithmetic on f32 vectors.

use rayon::prelude::*;

/// The rows `[rows, dim]`, each scaled to unit length; a row of zeros stays.
pub(super) fn unit(dim: usize, rows: &[f32]) -> Vec<f32> {
    let mut rows = rows.to_vec();
    rows.par_chunks_exact_mut(dim.max(1)).for_each(|row| {
        let length = dot(row, row).sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value /= length);
        }
    });
    rows
}

/// Σ aᵢ · bᵢ, summed in order.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The index of the largest value; of equal ones the first. 0 if there is none.
pub(super) fn argmax<T: PartialOrd>(values: &[T]) -> usize {
    (0..values.len()).fold(0, |best, index| {
        if values[index] > values[best] {
            index
        } else {
            best
        }
    })
}

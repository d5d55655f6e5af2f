//! Vectors with a class each, and their standardisation.

use rayon::prelude::*;

/// Vectors and the class of each.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Number of values in a row.
    pub dim: usize,
    /// The vectors, `[labels, dim]`.
    pub rows: &'a [f32],
    /// The class of each row, counted from 0.
    pub labels: &'a [usize],
}

impl Labelled<'_> {
    /// The number of classes: 1 + the largest one.
    pub(super) fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |largest| largest + 1)
    }
}

/// The share of `labels` that `classes` name; 0 without labels.
pub(super) fn share_right(classes: &[usize], labels: &[usize]) -> f64 {
    let right = classes.iter().zip(labels).filter(|(a, b)| a == b).count();
    right as f64 / labels.len().max(1) as f64
}

/// Mean and standard deviation of each column.
pub(super) struct Standardiser {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Standardiser {
    pub(super) fn new(set: &Labelled<'_>) -> Self {
        let rows = set.labels.len().max(1) as f64;
        let column = |d: usize| {
            let values = || set.rows.iter().skip(d).step_by(set.dim);
            let mean = values().map(|value| f64::from(*value)).sum::<f64>() / rows;
            let squares = values().map(|value| (f64::from(*value) - mean).powi(2));
            (mean, (squares.sum::<f64>() / rows).sqrt())
        };
        let (mean, deviation) = (0..set.dim).into_par_iter().map(column).unzip();
        Self { mean, deviation }
    }

    /// The rows with each column scaled to mean 0 and deviation 1; a column that was constant becomes 0.
    pub(super) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let dim = self.mean.len().max(1);
        let value = |(index, value): (usize, &f32)| {
            let d = index % dim;
            if self.deviation[d] > 0.0 {
                ((f64::from(*value) - self.mean[d]) / self.deviation[d]) as f32
            } else {
                0.0
            }
        };
        rows.iter().enumerate().map(value).collect()
    }
}

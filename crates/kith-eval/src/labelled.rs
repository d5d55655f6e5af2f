//! Rows with a class each, and what probes do to them first. Must never know: what the rows show.

use rayon::prelude::*;

use super::dot::dot;

/// Vectors and the class of each.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Values in a row.
    pub dim: usize,
    /// `[labels, dim]`.
    pub rows: &'a [f32],
    /// Classes, counted from 0.
    pub labels: &'a [usize],
}

impl Labelled<'_> {
    /// 1 + the largest class.
    pub(super) fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |largest| largest + 1)
    }
}

/// Mean and standard deviation of each column.
pub(super) struct Columns {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Columns {
    pub(super) fn of(set: &Labelled<'_>) -> Self {
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

    /// Each column with mean 0 and deviation 1; a constant column becomes 0.
    pub(super) fn standardise(&self, rows: &[f32]) -> Vec<f32> {
        let dim = self.mean.len().max(1);
        let value = |(place, value): (usize, &f32)| {
            let d = place % dim;
            match self.deviation[d] > 0.0 {
                true => ((f64::from(*value) - self.mean[d]) / self.deviation[d]) as f32,
                false => 0.0,
            }
        };
        rows.iter().enumerate().map(value).collect()
    }
}

/// Rows of unit length; a row of zeros stays.
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

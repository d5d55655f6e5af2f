//! The geometry of a set of unit vectors: whether positives are close, whether the sphere is used, whether the encoder has collapsed.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{spectrum::eigenvalues, vectors::dot};

/// Maximum number of rows, evenly spaced, that figures over all pairs of rows use: 2 · 10⁶ pairs.
pub const PAIRWISE_ROWS: usize = 2_000;

/// The geometry of a set of unit vectors. An encoder whose activations overflow gives vectors of length 0: they have no direction, and count as one point
/// with all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Geometry {
    /// Mean squared distance of positive pairs (Wang & Isola 2020); 0 is best.
    pub alignment: f64,
    /// ln mean exp(−2 ‖u − v‖²) over distinct rows (Wang & Isola 2020); lower is more uniform.
    pub uniformity: f64,
    /// exp of the entropy of the normalised singular values of the centred rows (Roy & Vetterli 2007).
    /// Only meaningful where `spread` is not near 0: that of a collapsed set is rounding noise.
    pub effective_rank: f64,
    /// Mean over the dimensions of the standard deviation, times √dim: 1 on a uniform sphere, 0 when collapsed.
    pub spread: f64,
    /// Mean cosine of distinct rows.
    pub mean_cosine: f64,
}

/// Geometry of paired unit rows `[rows, dim]`: row i of `a` belongs to row i of `b`.
///
/// All figures but the alignment are over the rows of both together. Uniformity and mean cosine are over the pairs of at most
/// [`PAIRWISE_ROWS`] of them, and a row with its positive is one of these pairs. An empty set gives zeros.
/// Runs in rayon's current pool.
pub fn geometry(dim: usize, a: &[f32], b: &[f32]) -> Geometry {
    debug_assert_eq!(a.len(), b.len());
    if a.is_empty() || dim == 0 {
        return Geometry::default();
    }
    Geometry {
        alignment: alignment(dim, a, b),
        ..shape(
            dim,
            &a.chunks_exact(dim)
                .chain(b.chunks_exact(dim))
                .collect::<Vec<_>>(),
        )
    }
}

/// As [`geometry`], with each figure but the alignment over the rows of one side: that of the two which is nearer to a collapse.
///
/// It is for sides with an encoder each. When both have collapsed, to two points, their rows together still have a spread.
pub fn geometry_of_each(dim: usize, a: &[f32], b: &[f32]) -> Geometry {
    debug_assert_eq!(a.len(), b.len());
    if a.is_empty() || dim == 0 {
        return Geometry::default();
    }
    let [a_shape, b_shape] =
        [a, b].map(|rows| shape(dim, &rows.chunks_exact(dim).collect::<Vec<_>>()));
    Geometry {
        alignment: alignment(dim, a, b),
        uniformity: a_shape.uniformity.max(b_shape.uniformity),
        effective_rank: a_shape.effective_rank.min(b_shape.effective_rank),
        spread: a_shape.spread.min(b_shape.spread),
        mean_cosine: a_shape.mean_cosine.max(b_shape.mean_cosine),
    }
}

/// All figures of a set of rows but the alignment, which is 0.
fn shape(dim: usize, rows: &[&[f32]]) -> Geometry {
    let (uniformity, mean_cosine) = pairwise(&evenly_spaced(rows));
    Geometry {
        alignment: 0.0,
        uniformity,
        effective_rank: effective_rank(&covariance(dim, rows)),
        spread: spread_of(dim, rows),
        mean_cosine,
    }
}

/// [`Geometry::spread`] of the rows `[rows, dim]`.
pub fn spread(dim: usize, rows: &[f32]) -> f64 {
    spread_of(dim, &rows.chunks_exact(dim.max(1)).collect::<Vec<_>>())
}

fn spread_of(dim: usize, rows: &[&[f32]]) -> f64 {
    if rows.is_empty() {
        return 0.0;
    }
    let mean = mean(dim, rows);
    let mut squares = vec![0.0; dim];
    for row in rows {
        let values = squares.iter_mut().zip(row.iter().zip(&mean));
        values.for_each(|(sum, (value, mean))| *sum += square(f64::from(*value) - mean));
    }
    let deviations = squares.iter().map(|sum| (sum / rows.len() as f64).sqrt());
    deviations.sum::<f64>() / (dim as f64).sqrt()
}

fn alignment(dim: usize, a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| square(f64::from(a - b)))
        .sum::<f64>()
        / (a.len() / dim) as f64
}

/// At most [`PAIRWISE_ROWS`] of the rows, evenly spaced; which ones depends on their number alone.
fn evenly_spaced<'a>(rows: &[&'a [f32]]) -> Vec<&'a [f32]> {
    let kept = rows.len().min(PAIRWISE_ROWS);
    (0..kept)
        .map(|index| rows[index * rows.len() / kept])
        .collect()
}

/// The share of the rows `[rows, dim]` that are of length 0.
pub fn share_without_direction(dim: usize, rows: &[f32]) -> f64 {
    let rows = rows.chunks_exact(dim.max(1));
    let all = rows.len().max(1) as f64;
    rows.filter(|row| !has_direction(row)).count() as f64 / all
}

fn has_direction(row: &[f32]) -> bool {
    row.iter().any(|value| *value != 0.0)
}

/// Uniformity and mean cosine over the distinct pairs. Squared distances of unit rows are 2 − 2 cos.
fn pairwise(rows: &[&[f32]]) -> (f64, f64) {
    let pairs = rows.len() * rows.len().saturating_sub(1) / 2;
    if pairs == 0 {
        return (0.0, 0.0);
    }
    let directed: Vec<bool> = rows.iter().map(|row| has_direction(row)).collect();
    let cosine = |row: usize, other: usize| {
        if directed[row] && directed[other] {
            f64::from(dot(rows[row], rows[other]))
        } else {
            1.0
        }
    };
    let sums: Vec<(f64, f64)> = (0..rows.len())
        .into_par_iter()
        .map(|row| {
            (0..row).map(|other| cosine(row, other)).fold(
                (0.0, 0.0),
                |(potential, cosines), cosine| {
                    (potential + (-4.0 * (1.0 - cosine)).exp(), cosines + cosine)
                },
            )
        })
        .collect();
    let potential: f64 = sums.iter().map(|(potential, _)| potential).sum();
    let cosines: f64 = sums.iter().map(|(_, cosines)| cosines).sum();
    ((potential / pairs as f64).ln(), cosines / pairs as f64)
}

/// The covariance of the rows times their number: `[dim, dim]`.
fn covariance(dim: usize, rows: &[&[f32]]) -> Vec<f64> {
    let mean = mean(dim, rows);
    let centred: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean))
        .collect();
    let mut covariance = vec![0.0; dim * dim];
    covariance
        .par_chunks_exact_mut(dim)
        .enumerate()
        .for_each(|(i, line)| {
            for row in centred.chunks_exact(dim) {
                line.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += row[i] * x);
            }
        });
    covariance
}

/// See [`Geometry::effective_rank`]; 0 if all rows are equal. The singular values of the centred rows are the square roots of the
/// covariance's eigenvalues.
fn effective_rank(covariance: &[f64]) -> f64 {
    let singular: Vec<f64> = eigenvalues(covariance)
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let total: f64 = singular.iter().sum();
    if total == 0.0 {
        return 0.0;
    }
    let shares = singular
        .iter()
        .map(|value| value / total)
        .filter(|share| *share > 0.0);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

fn mean(dim: usize, rows: &[&[f32]]) -> Vec<f64> {
    let mut sums = vec![0.0; dim];
    for row in rows {
        let values = sums.iter_mut().zip(*row);
        values.for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
    sums
}

fn square(x: f64) -> f64 {
    x * x
}

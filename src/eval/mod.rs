//! Numbers about embeddings: retrieval and geometry. Plain `f32` slices in, numbers out.
//! Must never know: where vectors come from.

use serde::{Deserialize, Serialize};

/// How well queries find their match in a gallery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Share of queries whose match ranks first (ties count against the match).
    pub recall_at_1: f64,
    /// … among the first five.
    pub recall_at_5: f64,
    /// … among the first ten.
    pub recall_at_10: f64,
    /// Mean reciprocal rank.
    pub mrr: f64,
}

/// For each query row the relevant gallery rows (any of them counts); cosine of unit rows of `dim` values.
pub fn retrieval(
    dim: usize,
    queries: &[f32],
    gallery: &[f32],
    relevant: &[Vec<usize>],
) -> Retrieval {
    todo!(
        "{dim} {} {} {}",
        queries.len(),
        gallery.len(),
        relevant.len()
    )
}

/// The shape of a set of unit vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Mean squared distance of positive pairs (Wang & Isola 2020); 0 is best.
    pub alignment: f64,
    /// ln mean exp(−2 ‖u − v‖²) over distinct rows (Wang & Isola 2020); lower is more uniform.
    pub uniformity: f64,
    /// exp of the entropy of the normalised singular values of the centred rows (Roy & Vetterli 2007).
    pub effective_rank: f64,
    /// Mean over dimensions of the standard deviation, times √dim: 1 on a uniform sphere, 0 when collapsed.
    pub spread: f64,
    /// Mean cosine of distinct rows.
    pub mean_cosine: f64,
}

/// Geometry of paired unit rows: row i of `a` belongs to row i of `b`.
pub fn geometry(dim: usize, a: &[f32], b: &[f32]) -> Geometry {
    todo!("{dim} {} {}", a.len(), b.len())
}

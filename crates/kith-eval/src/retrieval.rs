//! Retrieval: how well the vector of a query finds its match in a gallery.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::vectors::dot;

/// How well queries find their match in a gallery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Retrieval {
    /// Fraction of queries whose match ranks first (ties count against the match).
    pub recall_at_1: f64,
    /// Fraction of queries whose match ranks among the first five.
    pub recall_at_5: f64,
    /// Fraction of queries whose match ranks among the first ten.
    pub recall_at_10: f64,
    /// Mean reciprocal rank; a match that is never found counts 0.
    pub mrr: f64,
}

impl Retrieval {
    /// From the rank of each query's match, counted from 1; `None`: never found. Without queries all figures are 0.
    pub fn from_ranks(ranks: &[Option<usize>]) -> Self {
        let mean = |value: &dyn Fn(usize) -> f64| {
            let found = ranks.iter().flatten().map(|rank| value(*rank));
            found.sum::<f64>() / ranks.len().max(1) as f64
        };
        let recall = |at: usize| mean(&|rank| f64::from(u8::from(rank <= at)));
        Self {
            recall_at_1: recall(1),
            recall_at_5: recall(5),
            recall_at_10: recall(10),
            mrr: mean(&|rank| 1.0 / rank as f64),
        }
    }
}

/// [`Retrieval::from_ranks`] of the [`ranks`] of the queries.
pub fn retrieval(
    dim: usize,
    queries: &[f32],
    gallery: &[f32],
    relevant: &[Vec<usize>],
) -> Retrieval {
    Retrieval::from_ranks(&ranks(dim, queries, gallery, relevant))
}

/// The rank of each query's match in the gallery, by cosine and counted from 1.
///
/// `queries` and `gallery` are unit rows `[rows, dim]`; `relevant` holds, for each query, the gallery rows that count as its match. A
/// query's rank is that of its best relevant row among the rows that are not relevant to it. It is `None` for a query without a relevant
/// row or whose best cosine is NaN. Runs in rayon's current pool.
pub fn ranks(
    dim: usize,
    queries: &[f32],
    gallery: &[f32],
    relevant: &[Vec<usize>],
) -> Vec<Option<usize>> {
    debug_assert_eq!(queries.len(), dim * relevant.len());
    queries
        .par_chunks_exact(dim.max(1))
        .zip(relevant)
        .map(|(query, relevant)| rank(query, gallery, relevant))
        .collect()
}

/// 1 + the number of rows that are not relevant and at least as close as the best relevant one.
fn rank(query: &[f32], gallery: &[f32], relevant: &[usize]) -> Option<usize> {
    let mut cosines: Vec<f32> = gallery
        .chunks_exact(query.len())
        .map(|row| dot(query, row))
        .collect();
    let best = relevant
        .iter()
        .map(|row| cosines[*row])
        .fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY {
        return None;
    }
    relevant
        .iter()
        .for_each(|row| cosines[*row] = f32::NEG_INFINITY);
    // A NaN counts against the match, as a tie does.
    Some(
        1 + cosines
            .iter()
            .filter(|cosine| cosine.is_nan() || **cosine >= best)
            .count(),
    )
}

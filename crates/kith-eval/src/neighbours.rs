//! Classification by the votes of the nearest neighbours.

use rayon::prelude::*;

use super::{
    labelled::{Labelled, share_right},
    vectors::{argmax, dot, unit},
};

/// Temperature of a neighbour's vote (Wu et al. 2018, *Unsupervised feature learning via non-parametric instance discrimination*).
const TEMPERATURE: f64 = 0.07;

/// Fraction of `test` that the `k` nearest rows of `train` classify correctly. They vote by cosine, each with weight exp(cosine / 0.07)
/// (Wu et al. 2018).
///
/// Ties in the vote go to the lower class. Rows need not be of unit length. Empty sets give 0. Runs in rayon's current pool.
pub fn neighbour_accuracy(train: &Labelled<'_>, test: &Labelled<'_>, k: usize) -> f64 {
    share_right(&neighbour_classes(train, test, k), test.labels)
}

/// The class of each row of `test` by that vote; none where there is nobody to vote.
pub(crate) fn neighbour_classes(train: &Labelled<'_>, test: &Labelled<'_>, k: usize) -> Vec<usize> {
    if train.labels.is_empty() || k == 0 {
        return Vec::new();
    }
    let gallery = unit(train.dim, train.rows);
    let classes = train.classes();
    unit(test.dim, test.rows)
        .par_chunks_exact(test.dim.max(1))
        .map(|query| vote(&nearest(query, &gallery, k), train.labels, classes))
        .collect()
}

/// Cosine and index of the `k` nearest rows, ordered by index; of equally near ones the first.
fn nearest(query: &[f32], gallery: &[f32], k: usize) -> Vec<(f32, usize)> {
    let mut found: Vec<(f32, usize)> = gallery
        .chunks_exact(query.len())
        .enumerate()
        .map(|(row, vector)| (dot(query, vector), row))
        .collect();
    if k < found.len() {
        found.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.truncate(k);
    }
    found.sort_unstable_by_key(|(_, row)| *row);
    found
}

fn vote(nearest: &[(f32, usize)], labels: &[usize], classes: usize) -> usize {
    let mut votes = vec![0.0; classes];
    for (cosine, row) in nearest {
        votes[labels[*row]] += (f64::from(*cosine) / TEMPERATURE).exp();
    }
    argmax(&votes)
}

//! Classification by nearest neighbours. Must never know: what the rows show.

use rayon::prelude::*;

use super::{
    dot::dot,
    labelled::{Labelled, unit},
};

/// Temperature of a neighbour's vote (Wu et al. 2018, *Unsupervised feature learning via non-parametric instance discrimination*).
const TEMPERATURE: f64 = 0.07;

/// Share of `test` whose class is voted for by the `k` nearest rows of `train` by cosine, each with weight exp(cosine / 0.07).
///
/// Ties in the vote go to the lower class. Rows need not be of unit length. Empty sets give 0. Runs in rayon's current pool.
pub fn neighbour_accuracy(train: &Labelled<'_>, test: &Labelled<'_>, k: usize) -> f64 {
    if train.labels.is_empty() || test.labels.is_empty() || k == 0 {
        return 0.0;
    }
    let gallery = unit(train.dim, train.rows);
    let classes = train.classes();
    let right = unit(test.dim, test.rows)
        .par_chunks_exact(test.dim.max(1))
        .zip(test.labels)
        .filter(|(query, label)| {
            let nearest = nearest(query, &gallery, k);
            vote(&nearest, train.labels, classes) == **label
        })
        .count();
    right as f64 / test.labels.len() as f64
}

/// (cosine, row) of the `k` nearest rows, in no order; of equally near ones the first.
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
    (0..classes).fold(0, |best, class| match votes[class] > votes[best] {
        true => class,
        false => best,
    })
}

//! Retrieval and geometry on sets small enough to compute by hand, and on random ones whose figures are known.

use kith_eval::{
    Geometry, PAIRWISE_ROWS, Retrieval, geometry, retrieval, share_without_direction, spread,
};
use kith_seed::mix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{found} is not {expected}"
    );
}

/// Unit vectors uniform on the sphere.
fn sphere(dim: usize, rows: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed]));
    let mut row = || {
        let row: Vec<f32> = (0..dim)
            .map(|_| (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0)
            .collect();
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.into_iter().map(move |x| x / length)
    };
    (0..rows).flat_map(|_| row()).collect()
}

#[test]
fn ranks_give_recall_and_reciprocal_rank() {
    // One query against eleven rows with cosines 0.0, 0.1, … 1.0: row 10 is the best, row 0 the eleventh.
    let gallery: Vec<f32> = (0..11).map(|row| row as f32 / 10.0).collect();
    let of = |row: usize| retrieval(1, &[1.0], &gallery, &[vec![row]]);
    let expected = |recall_at_1, recall_at_5, recall_at_10, mrr| Retrieval {
        recall_at_1,
        recall_at_5,
        recall_at_10,
        mrr,
    };
    assert_eq!(of(10), expected(1.0, 1.0, 1.0, 1.0));
    assert_eq!(of(9), expected(0.0, 1.0, 1.0, 0.5));
    assert_eq!(of(6), expected(0.0, 1.0, 1.0, 0.2));
    assert_eq!(of(5), expected(0.0, 0.0, 1.0, 1.0 / 6.0));
    assert_eq!(of(0), expected(0.0, 0.0, 0.0, 1.0 / 11.0));
}

#[test]
fn any_relevant_row_counts_and_the_others_do_not_stand_in_its_way() {
    let gallery = [1.0, 0.9, 0.8, 0.7];
    let of = |relevant: &[usize]| retrieval(1, &[1.0], &gallery, &[relevant.to_vec()]).mrr;
    assert_eq!(of(&[3, 1]), 0.5);
    assert_eq!(of(&[0, 1, 2, 3]), 1.0);
}

#[test]
fn ties_count_against_the_match() {
    // A collapsed encoder finds nothing.
    let collapsed = [0.6, 0.8].repeat(20);
    let relevant: Vec<_> = (0..20).map(|row| vec![row]).collect();
    let figures = retrieval(2, &collapsed, &collapsed, &relevant);
    assert_eq!((figures.recall_at_1, figures.recall_at_10), (0.0, 0.0));
    assert_close(figures.mrr, 1.0 / 20.0, 1e-12);
}

#[test]
fn queries_that_cannot_be_answered_count_as_misses() {
    let relevant = [vec![0], vec![], vec![0]];
    let figures = retrieval(1, &[1.0, 1.0, f32::NAN], &[1.0, 0.5], &relevant);
    assert_close(figures.recall_at_1, 1.0 / 3.0, 1e-12);
    assert_eq!(retrieval(1, &[], &[1.0], &[]), Retrieval::default());
}

#[test]
fn a_square_of_vectors_has_the_geometry_computed_by_hand() {
    // ±x are positives of ±y: distances² are 2 within pairs; among the six distinct pairs four at 2, two at 4.
    let a = [1.0, 0.0, -1.0, 0.0];
    let b = [0.0, 1.0, 0.0, -1.0];
    let found = geometry(2, &a, &b);
    assert_close(found.alignment, 2.0, 1e-12);
    assert_close(
        found.uniformity,
        ((4.0 * (-4.0_f64).exp() + 2.0 * (-8.0_f64).exp()) / 6.0).ln(),
        1e-12,
    );
    assert_close(found.effective_rank, 2.0, 1e-9);
    assert_close(found.spread, 1.0, 1e-12);
    assert_close(found.mean_cosine, -1.0 / 3.0, 1e-12);
}

#[test]
fn unequal_axes_have_the_entropy_of_their_singular_values() {
    // Centred already; the singular values are 2 · 0.8 and 2 · 0.6, so their shares are 4/7 and 3/7.
    let a = [0.8, 0.6, -0.8, -0.6];
    let b = [0.8, -0.6, -0.8, 0.6];
    let entropy = -(4.0 / 7.0_f64) * (4.0 / 7.0_f64).ln() - (3.0 / 7.0_f64) * (3.0 / 7.0_f64).ln();
    // 0.8 and 0.6 are rounded to f32.
    assert_close(geometry(2, &a, &b).effective_rank, entropy.exp(), 1e-6);
}

#[test]
fn rows_without_a_direction_count_as_one_point() {
    let zeros = [0.0; 20];
    let found = geometry(2, &zeros, &zeros);
    assert_eq!((found.mean_cosine, found.spread), (1.0, 0.0));
    assert_eq!(found.uniformity, 0.0);
    assert_eq!(share_without_direction(2, &zeros), 1.0);
    // Of the six pairs of these rows one has two directions, which are opposite.
    let found = geometry(2, &[0.0, 0.0, 0.6, 0.8], &[0.0, 0.0, -0.6, -0.8]);
    assert_close(found.mean_cosine, 4.0 / 6.0, 1e-6);
    assert_eq!(share_without_direction(2, &[0.0, 0.0, 0.6, 0.8]), 0.5);
    assert_eq!(share_without_direction(2, &[]), 0.0);
}

#[test]
fn a_collapsed_set_has_no_spread_and_cosine_one() {
    let same = [0.6, 0.8].repeat(10);
    let found = geometry(2, &same, &same);
    // 0.6² + 0.8² is 1 to f32's precision.
    assert_close(found.mean_cosine, 1.0, 1e-6);
    assert_close(found.uniformity, 0.0, 1e-6);
    assert_close(found.spread, 0.0, 1e-12);
    assert_eq!((found.alignment, found.effective_rank), (0.0, 0.0));
    assert_eq!(geometry(2, &[], &[]), Geometry::default());
    assert_eq!(spread(2, &[]), 0.0);
}

#[test]
fn a_uniform_sphere_is_spread_and_full_in_rank() {
    let (dim, rows) = (16, 1_500);
    let found = geometry(dim, &sphere(dim, rows, 1), &sphere(dim, rows, 2));
    // Independent partners are as far apart as any two vectors: E‖u − v‖² = 2.
    assert_close(found.alignment, 2.0, 0.05);
    assert_close(found.spread, 1.0, 0.01);
    assert_close(found.mean_cosine, 0.0, 0.005);
    // The singular values differ by the sampling noise of 3,000 rows only.
    assert!(
        found.effective_rank > 15.9 && found.effective_rank <= 16.0,
        "{}",
        found.effective_rank
    );
    assert_eq!(
        found.spread,
        spread(dim, &[sphere(dim, rows, 1), sphere(dim, rows, 2)].concat())
    );
    assert!(
        2 * rows > PAIRWISE_ROWS,
        "the pairwise figures above came from a part of the rows"
    );
}

#[test]
fn figures_do_not_depend_on_the_number_of_threads() {
    let (a, b) = (sphere(8, 700, 1), sphere(8, 700, 2));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a small pool");
        pool.install(|| geometry(8, &a, &b))
    };
    assert_eq!(with(1), with(3));
}

//! The linear probe and the nearest neighbours on classes whose answer is known.

use kith_eval::{Labelled, ProbeConfig, neighbour_accuracy, probe_accuracy};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 6;
const CLASSES: usize = 3;

/// Rows around one corner for each class, `noise` wide; a shift that no class is told apart by is on top.
fn rows(noise: f32, shift: f32, count: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<usize> = (0..count).map(|row| row % CLASSES).collect();
    let rows = labels
        .iter()
        .flat_map(|label| (0..DIM).map(move |d| f32::from(u8::from(d == *label))))
        .map(|corner| corner + shift + noise * random.random_range(-1.0..1.0))
        .collect();
    (rows, labels)
}

fn set<'a>((rows, labels): &'a (Vec<f32>, Vec<usize>)) -> Labelled<'a> {
    Labelled {
        dim: DIM,
        rows,
        labels,
    }
}

fn quick() -> ProbeConfig {
    ProbeConfig {
        rate: 0.1,
        batch: 64,
        epochs: 30,
        ..ProbeConfig::default()
    }
}

#[test]
fn a_probe_reads_off_classes_that_a_plane_divides() {
    let (train, test) = (rows(0.4, 0.0, 300, 1), rows(0.4, 0.0, 300, 2));
    assert_eq!(probe_accuracy(&set(&train), &set(&test), &quick()), 1.0);
}

#[test]
fn neither_finds_what_is_not_there() {
    // Chance is 1/3; four standard errors of 600 rows are 0.08.
    let mut train = rows(1.0, 0.0, 600, 1);
    let test = rows(1.0, 0.0, 600, 2);
    train.1.rotate_left(100);
    train.1.reverse();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    train
        .1
        .iter_mut()
        .for_each(|label| *label = random.random_range(0..CLASSES));
    for accuracy in [
        probe_accuracy(&set(&train), &set(&test), &quick()),
        neighbour_accuracy(&set(&train), &set(&test), 20),
    ] {
        assert!((accuracy - 1.0 / 3.0).abs() < 0.08, "{accuracy}");
    }
}

#[test]
fn standardised_columns_are_read_at_the_published_rate_whatever_their_scale() {
    let scaled = |seed| {
        let (mut rows, labels) = rows(0.4, 0.0, 300, seed);
        rows.iter_mut()
            .for_each(|value| *value = *value * 1e-3 + 7.0);
        (rows, labels)
    };
    let (train, test) = (scaled(1), scaled(2));
    let published = ProbeConfig::default();
    let standardised = ProbeConfig {
        standardise: true,
        ..published
    };
    assert_eq!(
        probe_accuracy(&set(&train), &set(&test), &standardised),
        1.0
    );
    // Without it a common offset of 7 drowns differences of a thousandth.
    assert!(probe_accuracy(&set(&train), &set(&test), &published) < 0.7);
}

#[test]
fn a_probe_depends_on_its_seed_and_on_nothing_else() {
    let (train, test) = (rows(1.0, 0.0, 300, 1), rows(1.0, 0.0, 300, 2));
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| probe_accuracy(&set(&train), &set(&test), &quick()))
    };
    assert_eq!(with_threads(1), with_threads(3));
}

#[test]
fn neighbours_vote_by_direction_not_by_length() {
    let (train, mut test) = (rows(0.3, 0.0, 300, 1), rows(0.3, 0.0, 90, 2));
    test.0.iter_mut().for_each(|value| *value *= 50.0);
    assert_eq!(neighbour_accuracy(&set(&train), &set(&test), 20), 1.0);
}

#[test]
fn the_nearest_weigh_more_than_the_many() {
    // Two far rows of class 1 against one near row of class 0: exp(1 / 0.07) is more than twice exp(0.5 / 0.07).
    let train = Labelled {
        dim: 2,
        rows: &[1.0, 0.0, 0.5, 0.866, 0.5, -0.866],
        labels: &[0, 1, 1],
    };
    let test = Labelled {
        dim: 2,
        rows: &[1.0, 0.0],
        labels: &[0],
    };
    assert_eq!(neighbour_accuracy(&train, &test, 3), 1.0);
    // More neighbours than rows are all rows; none are no vote.
    assert_eq!(neighbour_accuracy(&train, &test, 20), 1.0);
    assert_eq!(neighbour_accuracy(&train, &test, 0), 0.0);
}

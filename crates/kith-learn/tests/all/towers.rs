//! Training an encoder for each side of pairs: both learn, each from its own images, and the gradients are those of the directed loss.

use kith_learn::{FixedViews, GlobalLoss, LearnConfig, ObjectiveKind, Scores};
use kith_mcmc::{Estimator, ImageKey, PairEntry, PairGraph, PairKey, Recency, Side, SlotKey};
use kith_nn::{Device, NamedArray, Towers};

use crate::tiny::{Store, all_configs, baselines, batch, config, directed_graph, two_towers, view};

const PAIRS: u32 = 8;

/// Weights of one side, flat.
fn flat(towers: &Towers, side: Side) -> Vec<f32> {
    let arrays = towers.get(side).to_arrays().expect("weights");
    arrays.into_iter().flat_map(|array| array.data).collect()
}

#[test]
fn both_towers_start_alike_and_learn_apart_under_every_objective() {
    let graph = directed_graph(12);
    for config in all_configs().into_iter().chain(baselines()) {
        let mut learner = two_towers(config.clone());
        let start = flat(&learner.towers, Side::Anchor);
        assert_eq!(start, flat(&learner.towers, Side::Positive));
        for step in 0..4 {
            let pairs = [0, 3, 5, 6].map(|pair| (pair + step as u32) % 12);
            let report = learner
                .step(
                    &batch(&graph, step, &pairs),
                    &graph,
                    &Store::default(),
                    1e-3,
                )
                .expect("the step is sound");
            assert!(report.anchors > 0 && report.loss.is_finite(), "{config:?}");
        }
        let [anchor, positive] = Side::BOTH.map(|side| flat(&learner.towers, side));
        assert_ne!(anchor, start, "{config:?}");
        assert_ne!(positive, start, "{config:?}");
        assert_ne!(anchor, positive, "{config:?}");
        assert_eq!(learner.optimizer.updates(), 4);
    }
}

#[test]
fn what_is_captured_comes_back_and_goes_on_bit_for_bit() {
    let graph = directed_graph(12);
    let steps = |learner: &mut kith_learn::Learner, steps: std::ops::Range<u64>| {
        for step in steps {
            let pairs = [1, 4, 7, 9].map(|pair| (pair + 5 * step as u32) % 12);
            learner
                .step(
                    &batch(&graph, step, &pairs),
                    &graph,
                    &Store::default(),
                    1e-3,
                )
                .expect("the step is sound");
        }
    };
    let config = config(Estimator::Subset, Scores::Refreshed);
    let mut straight = two_towers(config.clone());
    steps(&mut straight, 0..3);
    let weights = straight.towers.to_arrays().expect("weights");
    let moments = straight.optimizer.to_arrays().expect("moments");
    let chains = straight.table.to_columns();
    steps(&mut straight, 3..6);

    let mut resumed = two_towers(config);
    resumed.towers = Towers::from_arrays(resumed.towers.config(), &weights, &Device::cpu())
        .expect("the same shapes");
    resumed.optimizer.load_arrays(&moments).expect("the same");
    resumed.table = kith_mcmc::ChainTable::from_columns(&chains).expect("even columns");
    steps(&mut resumed, 3..6);
    assert!(
        resumed.towers.to_arrays().expect("weights")
            == straight.towers.to_arrays().expect("weights")
    );
    assert_eq!(resumed.table.to_columns(), straight.table.to_columns());
}

/// Pairs of two images each; image 0 is the anchor of two pairs, and the positive of another.
fn uneven() -> (PairGraph, Vec<PairKey>, Vec<f32>) {
    let mut graph = PairGraph::directed();
    for pair in 0..PAIRS {
        let images = match pair {
            1 => [0, 3],
            2 => [4, 0],
            _ => [2 * pair, 2 * pair + 1],
        };
        graph.insert(PairKey(pair), PairEntry::new(images.map(ImageKey), None));
    }
    let slots = (0..2 * PAIRS).map(SlotKey::from_packed);
    let pixels = slots.flat_map(|slot| view(graph.image(slot).expect("it is there"), 1));
    let pixels = pixels.collect();
    (graph, (0..PAIRS).map(PairKey).collect(), pixels)
}

/// Encoders that differ, off their starting point.
fn apart() -> Towers {
    let towers = two_towers(config(Estimator::Subset, Scores::Refreshed)).towers;
    let mut arrays = towers.to_arrays().expect("weights");
    let mut state = 1_u32;
    for value in arrays.iter_mut().flat_map(|array| &mut array.data) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value += (state >> 8) as f32 / (1 << 24) as f32 * 0.06 - 0.03;
    }
    Towers::from_arrays(towers.config(), &arrays, &Device::cpu()).expect("the same shapes")
}

/// The definition (two terms a pair), slot by slot.
fn by_definition(graph: &PairGraph, pixels: &[f32], towers: &Towers, beta: f64) -> f64 {
    let values = pixels.len() / (2 * PAIRS as usize);
    let vectors: Vec<Vec<f32>> = pixels
        .chunks(values)
        .zip(Side::BOTH.into_iter().cycle())
        .map(|(image, side)| {
            let features = towers.get(side).forward(image).expect("it encodes");
            features.embedding.data
        })
        .collect();
    let score = |a: usize, b: usize| {
        let dot: f32 = vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum();
        beta * f64::from(dot)
    };
    let slots = 2 * PAIRS as usize;
    let image = |slot: usize| graph.image(SlotKey::from_packed(slot as u32));
    let term = |anchor: usize| {
        let positives = graph.positives(SlotKey::from_packed(anchor as u32));
        let others = (0..slots).filter(|other| {
            other % 2 != anchor % 2 && !positives.excludes(SlotKey::from_packed(*other as u32))
        });
        // Each image once: every view of it is the same here.
        let sum: f64 = others
            .map(|other| {
                let same = |slot: &usize| slot % 2 == other % 2 && image(*slot) == image(other);
                let degree = (0..slots).filter(same).count() as f64;
                score(anchor, other).exp() / degree
            })
            .sum();
        sum.ln() - score(anchor, anchor ^ 1)
    };
    (0..slots).map(term).sum::<f64>() / slots as f64
}

#[test]
fn the_directed_global_loss_is_its_definition_and_its_gradient_the_slope_for_both_towers() {
    let (graph, pairs, pixels) = uneven();
    let towers = apart();
    let views = FixedViews {
        pairs: &pairs,
        pixels: &pixels,
    };
    let beta = 5.0;
    let loss = GlobalLoss::new(&graph, views, beta, 3).expect("the views fit");
    let (value, gradients) = loss.gradient(&towers).expect("it encodes");
    let expected = by_definition(&graph, &pixels, &towers, f64::from(beta));
    assert!((value - expected).abs() < 1e-4, "{value} {expected}");

    let arrays = gradients.to_arrays().expect("arrays");
    for side in [false, true] {
        let of_side = |array: &NamedArray| array.name.starts_with("positive.") == side;
        let squares = arrays.iter().filter(|array| of_side(array));
        let squares = squares.flat_map(|array| &array.data);
        let norm = squares.map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let step = 1e-3 / norm;
        let at = |step: f64| {
            let mut moved = towers.to_arrays().expect("weights");
            for (weight, by) in moved.iter_mut().zip(&arrays).filter(|(_, by)| of_side(by)) {
                let values = weight.data.iter_mut().zip(&by.data);
                values.for_each(|(weight, by)| *weight += (step * f64::from(*by)) as f32);
            }
            let moved = Towers::from_arrays(towers.config(), &moved, &Device::cpu());
            loss.value(&moved.expect("the same shapes"))
                .expect("it encodes")
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        // ReLUs that flip within the difference, and losses that are right to 10⁻⁷.
        assert!(
            (slope / norm.powi(2) - 1.0).abs() < 0.02,
            "positive {side}: {slope} {}",
            norm.powi(2)
        );
    }
}

#[test]
fn the_exact_objective_has_the_gradient_of_the_directed_loss() {
    let (graph, pairs, pixels) = uneven();
    let learner = two_towers(LearnConfig {
        objective: ObjectiveKind::Exact,
        ..config(Estimator::Subset, Scores::Refreshed)
    });
    let views = FixedViews {
        pairs: &pairs,
        pixels: &pixels,
    };
    let loss = GlobalLoss::new(&graph, views, learner.config().beta, 5).expect("the views fit");
    let (_, exact) = loss.gradient(&learner.towers).expect("it encodes");
    let whole = kith_learn::Batch {
        step: 0,
        pairs: pairs.clone(),
        recency: Recency::NONE,
        side: 32,
        pixels: pixels.clone(),
    };
    let (_, found) = learner
        .peek(&whole, &graph, &Store::default())
        .expect("it is sound");
    let [exact, found] = [exact, found.expect("there are candidates")]
        .map(|gradients| gradients.to_flat().expect("values"));
    let norm = |values: &[f32]| {
        values
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let error: Vec<f32> = exact.iter().zip(&found).map(|(a, b)| a - b).collect();
    // f32 sums in another order.
    assert!(
        norm(&error) < 1e-4 * norm(&exact),
        "{} {}",
        norm(&error),
        norm(&exact)
    );
}

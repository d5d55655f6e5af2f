//! The objectives other than EMC²: their values on single steps, their state, and the exact gradient of the two that use all images.

use std::collections::HashSet;

use kith_learn::{
    Batch, CarriedViews, FixedViews, GlobalLoss, LearnConfig, LearnError, Learner, ObjectiveKind,
    Scores, SharedView, Unreadable,
};
use kith_mcmc::{
    ChainState, ChainTable, Estimator, ImageKey, PairEntry, PairGraph, PairKey, Recency, SlotKey,
    StateKind,
};

use crate::tiny::{PIXELS, Store, baselines, batch, config, cosines, graph, learner, view};

pub(crate) const PAIRS: u32 = 8;

pub(crate) fn of(objective: ObjectiveKind) -> LearnConfig {
    let [base, ..] = baselines();
    LearnConfig { objective, ..base }
}

/// One view of each image, whatever the step.
pub(crate) struct Fixed;

impl CarriedViews for Fixed {
    fn views(
        &self,
        _step: u64,
        images: &[ImageKey],
    ) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let view = |image: &ImageKey| Some(view(*image, 1).into());
        Ok(images.iter().map(view).collect())
    }
}

/// Pairs of two images each, all different.
pub(crate) fn plain() -> PairGraph {
    let mut graph = PairGraph::default();
    for pair in 0..PAIRS {
        let images = [2 * pair, 2 * pair + 1].map(ImageKey);
        graph.insert(PairKey(pair), PairEntry::new(images, None));
    }
    graph
}

pub(crate) fn fixed_batch(step: u64, pairs: std::ops::Range<u32>) -> Batch {
    Batch {
        step,
        pixels: (2 * pairs.start..2 * pairs.end)
            .flat_map(|image| view(ImageKey(image), 1))
            .collect(),
        pairs: pairs.map(PairKey).collect(),
        recency: Recency::NONE,
        side: 32,
    }
}

/// Mean over an epoch of the learner's gradients in batches of `size`, as a flat vector; chains and averages move, weights do not.
fn mean_gradient(learner: &mut Learner, graph: &PairGraph, size: u32) -> Vec<f64> {
    let mut sum = vec![0.0; 0];
    let batches = PAIRS / size;
    for number in 0..batches {
        let batch = fixed_batch(number.into(), number * size..(number + 1) * size);
        let (_, gradients) = learner
            .gradient(&batch, graph, &Fixed)
            .expect("the step is sound");
        let flat = gradients
            .expect("there are candidates")
            .to_flat()
            .expect("values");
        sum.resize(flat.len(), 0.0);
        sum.iter_mut()
            .zip(flat)
            .for_each(|(sum, value)| *sum += f64::from(value) / f64::from(batches));
    }
    sum
}

/// ‖estimate − ∇L‖ / ‖∇L‖.
pub(crate) fn relative_error(learner: &mut Learner, graph: &PairGraph, size: u32) -> f64 {
    let whole = fixed_batch(0, 0..PAIRS);
    let views = FixedViews {
        pairs: &whole.pairs,
        pixels: &whole.pixels,
    };
    let exact = GlobalLoss::new(graph, views, learner.config().beta, 5)
        .and_then(|loss| loss.gradient(&learner.towers))
        .expect("the views fit");
    let exact = exact.1.to_flat().expect("values");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let mean = mean_gradient(learner, graph, size);
    let difference = mean.iter().zip(&exact).map(|(a, b)| a - f64::from(*b));
    norm(&mut difference.into_iter()) / norm(&mut exact.iter().map(|x| f64::from(*x)))
}

#[test]
fn the_exact_objective_has_the_gradient_of_the_global_loss_at_any_batch_size() {
    let graph = plain();
    for size in [2, 4, 8] {
        let error = relative_error(&mut learner(of(ObjectiveKind::Exact)), &graph, size);
        // f32 sums in another order.
        assert!(error < 1e-4, "b = {size}: {error}");
    }
    // The control: with the batch's images alone the same mean is far off.
    let error = relative_error(&mut learner(of(ObjectiveKind::InfoNce)), &graph, 2);
    assert!(error > 0.1, "{error}");
}

#[test]
fn sogclr_on_its_first_visit_of_the_whole_set_has_the_gradient_of_the_global_loss() {
    let graph = plain();
    let error = relative_error(&mut learner(of(ObjectiveKind::SogClr)), &graph, PAIRS);
    // f32 sums in another order.
    assert!(error < 1e-4, "{error}");
}

#[test]
fn the_exact_objective_refuses_a_set_that_is_too_large_by_the_settings_name() {
    let graph = plain();
    let mut learner = learner(LearnConfig {
        exact_images: 15,
        ..of(ObjectiveKind::Exact)
    });
    let error = learner
        .step(&fixed_batch(0, 0..2), &graph, &Fixed, 1e-3)
        .expect_err("sixteen images are too many");
    assert!(matches!(
        error,
        LearnError::TooManyImages {
            images: 16,
            max: 15
        }
    ));
    assert!(
        error.to_string().contains("learning.exact_images"),
        "{error}"
    );
}

/// β times the cosine, in `f64`.
pub(crate) fn scores(learner: &Learner, batch: &Batch) -> Vec<Vec<f64>> {
    let beta = f64::from(learner.config().beta);
    let score = |cosine: f32| beta * f64::from(cosine);
    let rows = cosines(learner, batch).into_iter();
    rows.map(|row| row.into_iter().map(score).collect())
        .collect()
}

#[test]
fn sogclr_follows_the_batchs_mean_with_gamma_and_reports_the_averages_logarithm() {
    let graph = plain();
    let mut learner = learner(LearnConfig {
        sogclr_gamma: 0.75,
        ..of(ObjectiveKind::SogClr)
    });
    let mut average: [Option<f64>; 4] = [None; 4];
    for step in 0..3 {
        let batch = batch(&graph, step, &[3, 5]);
        let scores = scores(&learner, &batch);
        let mut expected = 0.0;
        for (i, average) in average.iter_mut().enumerate() {
            let others = if i < 2 { [2, 3] } else { [0, 1] };
            let g = others.iter().map(|j| scores[i][*j].exp()).sum::<f64>() / 2.0;
            let u = average.map_or(g, |u| 0.25 * u + 0.75 * g);
            *average = Some(u);
            expected += (u.ln() - scores[i][i ^ 1]) / 4.0;
        }
        let report = learner
            .step(&batch, &graph, &Fixed, 1e-2)
            .expect("the step is sound");
        // Scores up to 10 in f32.
        assert!(
            (f64::from(report.loss) - expected).abs() < 1e-4,
            "{} {expected}",
            report.loss
        );
        for (slot, average) in [6, 7, 10, 11]
            .map(SlotKey::from_packed)
            .into_iter()
            .zip(average)
        {
            let state = learner.table.get(slot).expect("it was visited");
            let log_u = average.expect("it was set").ln();
            assert!((f64::from(state.log_score) - log_u).abs() < 1e-4);
            assert_eq!((state.negative, state.visits), (slot, step as u32 + 1));
        }
    }
}

#[test]
fn averages_neither_overflow_nor_stick_at_scores_of_ten_thousand() {
    let graph = plain();
    let mut learner = learner(LearnConfig {
        beta: 1e4,
        ..of(ObjectiveKind::SogClr)
    });
    let batch = batch(&graph, 4, &[3, 5, 6]);
    let planted = |log_score| ChainState {
        negative: SlotKey::from_packed(6),
        log_score,
        step: 0,
        visits: 1,
        visits_since_move: 0,
    };
    for log_u in [-1e4, 1e4] {
        (6..14).for_each(|slot| {
            learner
                .table
                .put(SlotKey::from_packed(slot), planted(log_u))
        });
        let scores = scores(&learner, &batch);
        let report = learner
            .step(&batch, &graph, &Fixed, 0.0)
            .expect("the step is sound");
        assert!(report.loss.is_finite() && report.gradient_norm.is_finite());
        let largest = scores[0][2..].iter().copied().fold(f64::MIN, f64::max);
        let state = learner.table.get(SlotKey::from_packed(6)).expect("visited");
        // The mean of four exponentials is within ln 4 of the largest; γ takes ln 0.9, 1 − γ takes ln 0.1.
        let expected = largest.max(f64::from(log_u) + 0.1_f64.ln());
        assert!(
            (f64::from(state.log_score) - expected).abs() < 2.0,
            "{state:?} {expected}"
        );
    }
}

#[test]
fn a_table_of_another_kind_is_not_read_as_ones_own() {
    let graph = plain();
    let kinds = [
        (ObjectiveKind::SogClr, StateKind::Averages),
        (ObjectiveKind::Scent, StateKind::Averages),
        (ObjectiveKind::Emc2, StateKind::Chains),
    ];
    for (objective, kind) in kinds {
        for (_, found) in kinds {
            let table = ChainTable::new(found);
            table.put(
                SlotKey::from_packed(2),
                ChainState {
                    negative: SlotKey::from_packed(9),
                    log_score: 3.0,
                    step: 1,
                    visits: 1,
                    visits_since_move: 0,
                },
            );
            let fresh = learner(of(objective));
            let learner = Learner::new(of(objective), 9, fresh.towers, fresh.optimizer, table);
            assert_eq!(learner.table.kind(), kind);
            assert_eq!(learner.table.len(), usize::from(found == kind));
        }
    }
    // What has no states leaves those of others alone, for the day they are wanted again.
    let table = ChainTable::new(StateKind::Averages);
    let fresh = learner(of(ObjectiveKind::InfoNce));
    let mut learner = Learner::new(
        of(ObjectiveKind::InfoNce),
        9,
        fresh.towers,
        fresh.optimizer,
        table,
    );
    learner
        .step(&batch(&graph, 0, &[3, 5]), &graph, &Fixed, 1e-3)
        .expect("the step is sound");
    assert_eq!(
        (learner.table.kind(), learner.table.len()),
        (StateKind::Averages, 0)
    );
}

#[test]
fn the_cache_draws_its_negatives_outside_the_batch_and_only_from_what_may_be_one() {
    let mut graph = graph(12);
    let mut learner = learner(LearnConfig {
        cache_refresh: 1.0,
        ..of(ObjectiveKind::NegativeCache)
    });
    let mut carried = 0;
    for step in 0..6 {
        let store = Store {
            unreadable: HashSet::from([ImageKey(20)]),
            ..Store::default()
        };
        let report = learner
            .step(&batch(&graph, step, &[0, 1, 3]), &graph, &store, 1e-3)
            .expect("the step is sound");
        assert_eq!(report.anchors, 6);
        carried += report.carried_encoded;
    }
    // 18 of the 23 images are not in the batch: six anchors in five steps draw some of them but for a chance of 10⁻²⁰.
    assert!(carried > 0);

    // Pairs 3 and 4 are left, and of one group: no image may be a negative, whatever is cached.
    let removed: HashSet<PairKey> = (0..12)
        .filter(|pair| ![3, 4].contains(pair))
        .map(PairKey)
        .collect();
    removed.iter().for_each(|pair| _ = graph.remove(*pair));
    let [_, positive] = graph.get(PairKey(4)).expect("it is left").images;
    let images = [
        graph.get(PairKey(3)).expect("it is left").images[0],
        positive,
    ];
    graph.insert(PairKey(50), PairEntry::new(images, None));
    let anchor = graph.get(PairKey(4)).expect("it is left").images[0];
    graph.insert(PairKey(51), PairEntry::new([images[0], anchor], None));
    learner.forget(&removed, &graph);
    let store = Store::default();
    let report = learner
        .step(&batch(&graph, 6, &[3]), &graph, &store, 1e-3)
        .expect("the step is sound");
    assert_eq!((report.anchors, report.carried_encoded), (0, 0));
}

#[test]
fn a_gradient_that_is_only_asked_for_moves_chains_and_leaves_the_weights() {
    let graph = plain();
    let mut asked = learner(config(Estimator::Walk, Scores::Refreshed));
    let mut stepped = learner(config(Estimator::Walk, Scores::Refreshed));
    let weights = asked.towers.to_arrays().expect("weights");
    for step in 0..4 {
        let batch = batch(&graph, step, &[1, 3, 6]);
        let (report, gradients) = asked.gradient(&batch, &graph, &Fixed).expect("it is sound");
        assert_eq!(batch.pixels.len(), 6 * PIXELS);
        let norm = gradients
            .expect("there are candidates")
            .norm()
            .expect("a norm");
        assert_eq!(norm, report.gradient_norm);
        let stepped = stepped
            .step(&batch, &graph, &Fixed, 0.0)
            .expect("it is sound");
        assert_eq!(stepped.loss, report.loss);
    }
    assert!(asked.towers.to_arrays().expect("weights") == weights);
    assert_eq!(asked.table.to_columns(), stepped.table.to_columns());
    assert_eq!(asked.table.len(), 6);
}

#[test]
fn what_a_step_will_ask_for_is_known_when_its_batch_is_drawn() {
    let graph = graph(24);
    let mut learner = learner(config(Estimator::Subset, Scores::Refreshed));
    let mut known = 0;
    for step in 1..=9 {
        // Each batch shares three pairs with the one before.
        let pairs: Vec<u32> = (0..8).map(|pair| (5 * step as u32 + pair) % 24).collect();
        let batch = batch(&graph, step, &pairs);
        let wanted = learner.carried(&batch.pairs, &graph);
        let store = Store::default();
        let report = learner.step(&batch, &graph, &store, 1e-3);
        report.expect("a step");
        let asked = store.asked.into_inner().expect("one thread");
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), wanted, "step {step}");
        known += wanted.len();
    }
    // The states of chains that were visited once belong to removed pairs.
    assert!(known > 0);
}

//! Whole training steps of a tiny encoder: their values, what they leave unchanged on failure, which images they never use, and that they
//! are reproducible. `src/unbiased.rs` tests the gradient itself.

use kith_learn::{Batch, LearnConfig, LearnError, Learner, Prototypes, Scores, StepReport};
use kith_mcmc::{ChainColumns, Estimator, PairGraph, PairKey, Side, SlotKey};
use kith_nn::{Device, EncoderConfig, NamedArray, Towers};

use crate::tiny::{
    PIXELS, Store, TINY, all_configs, baselines, batch, config, encodes_all, graph, infonce,
    learner, learner_of, scores,
};

/// Steps over 12 pairs in batches of 4, in turn.
pub(crate) fn train(
    learner: &mut Learner,
    graph: &PairGraph,
    store: &Store,
    steps: u64,
) -> Vec<StepReport> {
    let step = |step: u64| {
        let pairs: Vec<u32> = (0..4)
            .map(|k| ((step * 5 + k * (1 + step % 2 * 2)) % 12) as u32)
            .collect();
        learner
            .step(&batch(graph, step, &pairs), graph, store, 1e-3)
            .expect("the step is sound")
    };
    (0..steps).map(step).collect()
}

pub(crate) type State = (Vec<NamedArray>, Vec<NamedArray>, ChainColumns, Prototypes);

pub(crate) fn state(learner: &Learner) -> State {
    (
        learner.towers.to_arrays().expect("weights"),
        learner.optimizer.to_arrays().expect("moments"),
        learner.table.to_columns(),
        learner.prototypes.clone(),
    )
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a small pool");
    pool.install(work)
}

/// β times the cosine of the encoder's vectors for the batch.
#[test]
fn infonce_is_the_cross_entropy_of_the_batch_and_keeps_no_chains() {
    let graph = graph(12);
    let mut learner = learner(infonce());
    let batch = batch(&graph, 0, &[3, 5, 8]);
    let scores = scores(&learner, &batch);
    let entropy = |i: usize| {
        let others: f32 = (0..6).filter(|j| *j != i).map(|j| scores[i][j].exp()).sum();
        others.ln() - scores[i][i ^ 1]
    };
    let expected = (0..6).map(entropy).sum::<f32>() / 6.0;
    let report = learner
        .step(&batch, &graph, &Store::default(), 1e-3)
        .expect("the step is sound");
    // Scores up to 10, summed in another order.
    assert!(
        (report.loss - expected).abs() < 1e-4,
        "{} {expected}",
        report.loss
    );
    assert_eq!((report.anchors, report.carried_encoded), (6, 0));
    assert!(learner.table.is_empty());
}

#[test]
fn a_first_emc2_step_weighs_both_images_of_the_only_other_pair_alike() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Stored));
    let batch = batch(&graph, 0, &[3, 5]);
    let scores = scores(&learner, &batch);
    let others = |i: usize| if i < 2 { [2, 3] } else { [0, 1] };
    let term =
        |i: usize| -scores[i][i ^ 1] + others(i).iter().map(|j| scores[i][*j] / 2.0).sum::<f32>();
    let expected = (0..4).map(term).sum::<f32>() / 4.0;
    let report = learner
        .step(&batch, &graph, &Store::default(), 1e-3)
        .expect("the step is sound");
    // Scores up to 10, summed in another order.
    assert!(
        (report.loss - expected).abs() < 1e-4,
        "{} {expected}",
        report.loss
    );
    assert_eq!((report.anchors, learner.table.len()), (4, 4));
    let positive: f32 = (0..4).map(|i| scores[i][i ^ 1]).sum::<f32>() / 40.0;
    assert!((report.positive_cosine - positive).abs() < 1e-5);
}

#[test]
fn training_tells_pairs_apart() {
    let graph = graph(12);
    for config in [
        config(Estimator::Subset, Scores::Refreshed),
        LearnConfig {
            roulette: 0.3,
            ..config(Estimator::Subset, Scores::Stored)
        },
    ]
    .into_iter()
    .chain(baselines())
    {
        let name = format!("{config:?}");
        let reports = train(&mut learner(config), &graph, &Store::default(), 60);
        let mean = |reports: &[StepReport]| {
            reports
                .iter()
                .map(|report| report.global_loss_estimate)
                .sum::<f32>()
                / 6.0
        };
        let (first, last) = (mean(&reports[..6]), mean(&reports[54..]));
        // ln 22 ≈ 3.1 at the start, where all vectors are alike.
        assert!(last < first - 0.5, "{name}: {first} to {last}");
        let gap = |report: &StepReport| report.positive_cosine - report.mean_cosine;
        assert!(gap(&reports[59]) > gap(&reports[0]) + 0.1, "{name}");
    }
}

#[test]
fn vectors_without_a_direction_are_reported_as_one_point() {
    let mut learner = learner(infonce());
    let mut arrays = learner.towers.to_arrays().expect("weights");
    arrays.iter_mut().for_each(|array| array.data.fill(0.0));
    learner.towers = Towers::from_arrays(&TINY, &arrays, &Device::cpu()).expect("zeros");
    let reports = train(&mut learner, &graph(12), &Store::default(), 1);
    assert_eq!((reports[0].spread, reports[0].mean_cosine), (0.0, 1.0));
}

#[test]
fn the_same_steps_give_the_same_bits_on_one_two_and_three_threads() {
    let graph = graph(12);
    for config in all_configs().into_iter().chain(baselines()) {
        let run = |threads| {
            in_pool(threads, || {
                let mut learner = learner(config.clone());
                train(&mut learner, &graph, &Store::default(), 6);
                state(&learner)
            })
        };
        let one = run(1);
        let visited = one.2.anchor.len() > 12;
        assert_eq!(visited, config.objective.states().is_some(), "{config:?}");
        assert!(one == run(2) && one == run(3), "{config:?}");
    }
}

#[test]
fn a_step_that_is_not_finite_leaves_everything_as_it_was() {
    let graph = graph(12);
    for config in all_configs().into_iter().chain(baselines()) {
        let mut learner = learner(config.clone());
        train(&mut learner, &graph, &Store::default(), 5);
        let before = state(&learner);
        let sound = batch(&graph, 5, &[0, 3, 5, 9]);
        let mut refuse = |batch: &Batch, store: &Store, rate: f32| {
            let error = learner.step(batch, &graph, store, rate);
            assert!(
                matches!(error, Err(LearnError::NonFinite { step: 5, .. })),
                "{config:?}: {error:?}"
            );
            assert!(state(&learner) == before, "{config:?}");
        };
        let mut broken = sound.clone();
        broken.pixels[7] = f32::NAN;
        refuse(&broken, &Store::default(), 1e-3);
        refuse(&sound, &Store::default(), f32::INFINITY);
        if encodes_all(&config) {
            let store = Store {
                broken: true,
                ..Store::default()
            };
            refuse(&sound, &store, 1e-3);
        }
    }
}

#[test]
fn a_gradient_that_overflows_is_refused() {
    let graph = graph(12);
    let mut learner = learner(LearnConfig {
        beta: 1e38,
        ..config(Estimator::Walk, Scores::Stored)
    });
    let before = state(&learner);
    let error = learner.step(
        &batch(&graph, 0, &[3, 5, 8]),
        &graph,
        &Store::default(),
        1e-3,
    );
    assert!(
        matches!(error, Err(LearnError::NonFinite { .. })),
        "{error:?}"
    );
    assert!(state(&learner) == before);
}

#[test]
fn images_of_removed_pairs_are_never_used_again() {
    for config in all_configs().into_iter().chain(baselines()) {
        let mut graph = graph(12);
        let mut learner = learner(config.clone());
        train(&mut learner, &graph, &Store::default(), 9);
        // `Learner::forget` is not called: a step must notice that a chain's state was removed.
        (0..6).for_each(|pair| _ = graph.remove(PairKey(pair)));
        let store = Store::default();
        for step in 9..14 {
            let batch = batch(&graph, step, &[6, 8, 9, 11]);
            let report = learner
                .step(&batch, &graph, &store, 1e-3)
                .expect("the step is sound");
            assert_eq!(report.anchors, 8);
        }
        let asked = store.asked.into_inner().expect("no test thread panicked");
        assert!(
            asked.iter().all(|image| image.0 >= 12),
            "{config:?}: {asked:?}"
        );
        let removed = |slot: &u32| graph.image(SlotKey::from_packed(*slot)).is_none();
        let columns = learner.table.to_columns();
        let states = columns.anchor.iter().zip(&columns.negative);
        assert!(
            states
                .filter(|(anchor, _)| [6, 8, 9, 11].contains(&(*anchor / 2)))
                .all(|(_, negative)| !removed(negative))
        );
    }
}

#[test]
fn a_pair_that_is_removed_after_its_batch_was_loaded_takes_no_part() {
    let mut graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Refreshed));
    let batch = batch(&graph, 0, &[3, 5, 8]);
    graph.remove(PairKey(5));
    let report = learner
        .step(&batch, &graph, &Store::default(), 1e-3)
        .expect("the step is sound");
    assert_eq!(report.anchors, 4);
    let columns = learner.table.to_columns();
    assert!(
        columns
            .anchor
            .iter()
            .chain(&columns.negative)
            .all(|slot| slot / 2 != 5)
    );
}

#[test]
fn images_in_several_pairs_of_one_batch_are_no_negatives_of_each_other() {
    let graph = graph(12);
    for config in all_configs().into_iter().chain([infonce()]) {
        let mut learner = learner(config.clone());
        // Image 0 in pairs 0 and 1, image 4 twice in pair 2.
        for step in 0..3 {
            let report = learner
                .step(
                    &batch(&graph, step, &[0, 1, 2]),
                    &graph,
                    &Store::default(),
                    1e-3,
                )
                .expect("the step is sound");
            assert_eq!(report.anchors, 6);
        }
        for pair in [0, 1] {
            for side in [Side::Anchor, Side::Positive] {
                let state = learner.table.get(SlotKey::new(PairKey(pair), side));
                assert!(
                    state.is_none_or(|state| state.negative.pair() == PairKey(2)),
                    "{config:?}"
                );
            }
        }
    }
}

#[test]
fn a_batch_without_candidates_changes_nothing() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Stored));
    let before = state(&learner);
    for pairs in [&[][..], &[4], &[0, 1]] {
        let report = learner
            .step(&batch(&graph, 0, pairs), &graph, &Store::default(), 1e-3)
            .expect("nothing is wrong with it");
        assert_eq!((report.anchors, report.loss), (0, 0.0));
        assert_eq!(report.encode_seconds, 0.0, "nothing needs to be encoded");
    }
    assert!(state(&learner) == before);
}

#[test]
fn pixels_that_do_not_fit_the_pairs_are_an_error() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Stored));
    let mut short = batch(&graph, 0, &[3, 5]);
    short.pixels.truncate(3 * PIXELS);
    let error = learner.step(&short, &graph, &Store::default(), 1e-3);
    assert!(matches!(error, Err(LearnError::Nn(_))), "{error:?}");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let sound = config(Estimator::Subset, Scores::Stored);
    assert_eq!(sound.problems(), []);
    let refused = |change: fn(&mut LearnConfig), name: &str| {
        let mut config = sound.clone();
        change(&mut config);
        let problems = config.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, name);
    };
    refused(|config| config.beta = 0.0, "beta");
    refused(|config| config.beta = f32::NAN, "beta");
    refused(|config| config.sampler.burn_in = 1.5, "sampler.burn_in");
    refused(|config| config.carried_budget = 0.0, "carried_budget");
    refused(|config| config.roulette = -0.1, "roulette");
    refused(|config| config.start_share = 1.0, "start_share");
}

#[test]
fn steps_on_smaller_views_are_those_of_an_encoder_of_their_size() {
    let graph = graph(12);
    for config in all_configs().into_iter().chain(baselines()) {
        let trained = |side| {
            let shape = EncoderConfig { side, ..TINY };
            let mut learner = learner_of(&shape, &Device::cpu(), config.clone());
            let reports = train(&mut learner, &graph, &Store::default(), 4);
            assert!(reports.iter().all(|report| report.anchors > 0));
            state(&learner)
        };
        assert!(trained(64) == trained(32), "{config:?}");
    }
}

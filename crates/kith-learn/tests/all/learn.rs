//! Whole training steps of a tiny encoder: their values, what they leave untouched when they fail, whom they never use, and that they
//! repeat. The gradient itself is tested beside the code.

use kith_learn::{Batch, LearnConfig, LearnError, Learner, ObjectiveKind, Scores, StepReport};
use kith_mcmc::{
    ChainColumns, ChainState, Estimator, ImageKey, PairEntry, PairGraph, PairKey, Side, SlotKey,
};
use kith_nn::NamedArray;

use crate::tiny::{PIXELS, Store, baselines, batch, config, graph, infonce, learner, view};

/// Every way a carried negative can be scored and chosen.
fn all_configs() -> Vec<LearnConfig> {
    let scores = [Scores::Stored, Scores::Refreshed];
    let ways = |scores| {
        let subset = config(Estimator::Subset, scores);
        let walk = config(Estimator::Walk, scores);
        let played = LearnConfig {
            roulette: 0.5,
            ..subset.clone()
        };
        let budgeted = LearnConfig {
            carried_budget: 0.5,
            ..walk.clone()
        };
        [subset, walk, played, budgeted]
    };
    scores.into_iter().flat_map(ways).collect()
}

/// Whether no carried negative with weight is left unseen.
fn looks_at_all(config: &LearnConfig) -> bool {
    match config.objective {
        ObjectiveKind::Emc2 => {
            config.scores == Scores::Refreshed
                || (config.roulette == 0.0 && config.carried_budget == 1.0)
        }
        ObjectiveKind::InfoNce | ObjectiveKind::SogClr => false,
        ObjectiveKind::NegativeCache | ObjectiveKind::Exact => true,
    }
}

/// Steps over 12 pairs in batches of 4, in turn.
fn train(learner: &mut Learner, graph: &PairGraph, store: &Store, steps: u64) -> Vec<StepReport> {
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

type State = (Vec<NamedArray>, Vec<NamedArray>, ChainColumns);

fn state(learner: &Learner) -> State {
    (
        learner.encoder.to_arrays().expect("weights"),
        learner.optimizer.to_arrays().expect("moments"),
        learner.table.to_columns(),
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
fn scores(learner: &Learner, batch: &Batch) -> Vec<Vec<f32>> {
    let rows = learner
        .encoder
        .forward(&batch.pixels)
        .expect("it encodes")
        .embedding;
    let row = |i: usize| &rows.data[i * rows.dim..(i + 1) * rows.dim];
    let score =
        |i: usize, j: usize| 10.0 * row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
    let slots = 2 * batch.pairs.len();
    (0..slots)
        .map(|i| (0..slots).map(|j| score(i, j)).collect())
        .collect()
}

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
        if looks_at_all(&config) {
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
        // The table is not told: a chain that stands on a gone pair must notice by itself.
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
        let gone = |slot: &u32| graph.image(SlotKey::from_packed(*slot)).is_none();
        let columns = learner.table.to_columns();
        let stands = columns.anchor.iter().zip(&columns.negative);
        assert!(
            stands
                .filter(|(anchor, _)| [6, 8, 9, 11].contains(&(*anchor / 2)))
                .all(|(_, negative)| !gone(negative))
        );
    }
}

#[test]
fn a_carried_negative_that_turns_out_to_be_a_positive_is_left() {
    for config in all_configs() {
        let mut graph = graph(12);
        let mut learner = learner(config.clone());
        plant(&learner);
        for (anchor, state) in chains(&learner) {
            let images = [anchor, state.negative.packed()].map(|slot| {
                graph
                    .image(SlotKey::from_packed(slot))
                    .expect("it is there")
            });
            graph.insert(
                PairKey(100 + anchor),
                PairEntry {
                    images,
                    group: None,
                },
            );
        }
        let store = Store::default();
        learner
            .step(&batch(&graph, 9, &VISITED), &graph, &store, 1e-3)
            .expect("the step is sound");
        assert!(
            store
                .asked
                .into_inner()
                .expect("no test thread panicked")
                .is_empty(),
            "{config:?}"
        );
        assert!(
            chains(&learner).iter().all(|(_, state)| state.visits == 1),
            "{config:?}"
        );
    }
}

#[test]
fn a_pair_that_goes_while_its_batch_is_on_the_way_takes_no_part() {
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

/// The pairs of a batch, and chains of theirs that stand on strangers with a score that is hard to beat.
const VISITED: [u32; 4] = [6, 8, 9, 11];

fn plant(learner: &Learner) {
    for anchor in VISITED.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]) {
        let negative = SlotKey::from_packed(6 + anchor % 4);
        let state = ChainState {
            negative,
            log_score: 1e4,
            step: 1,
            visits: 1,
            visits_since_move: 0,
        };
        learner.table.put(SlotKey::from_packed(anchor), state);
    }
}

fn chains(learner: &Learner) -> Vec<(u32, ChainState)> {
    let slots = VISITED.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]);
    let chain = |slot: u32| {
        learner
            .table
            .get(SlotKey::from_packed(slot))
            .expect("it was planted")
    };
    slots.map(|slot| (slot, chain(slot))).collect()
}

#[test]
fn a_carried_image_that_cannot_be_read_restarts_its_chains() {
    let graph = graph(12);
    for config in all_configs() {
        let mut learner = learner(config.clone());
        plant(&learner);
        let store = Store {
            unreadable: (0..24).map(ImageKey).collect(),
            ..Store::default()
        };
        let next = batch(&graph, 9, &VISITED);
        let report = learner
            .step(&next, &graph, &store, 1e-3)
            .expect("the step is sound");
        assert_eq!((report.anchors, report.carried_encoded), (8, 0));
        let asked = store.asked.into_inner().expect("no test thread panicked");
        assert!(!asked.is_empty(), "{config:?}");
        for (_, state) in chains(&learner) {
            let image = graph.image(state.negative).expect("all pairs are there");
            let fresh =
                VISITED.contains(&state.negative.pair().0) && (state.step, state.visits) == (9, 1);
            // What the budget left out was not missed: that chain stays as it was.
            assert!(fresh || !asked.contains(&image), "{config:?}: {state:?}");
        }
    }
}

#[test]
fn a_chain_that_stays_on_an_encoded_negative_gets_todays_score() {
    let graph = graph(12);

    for config in all_configs().into_iter().filter(looks_at_all) {
        // A large β, so that a walk stays where it is now and then.
        let beta = 300.0;
        let mut learner = learner(LearnConfig {
            beta,
            ..config.clone()
        });
        plant(&learner);
        let mut stayed = 0;
        for step in 9..13 {
            let (next, before) = (batch(&graph, step, &VISITED), chains(&learner));
            learner
                .step(&next, &graph, &Store::default(), 0.0)
                .expect("the step is sound");
            let vector = |pixels: &[f32]| {
                learner
                    .encoder
                    .forward(pixels)
                    .expect("it encodes")
                    .embedding
                    .data
            };
            for (position, ((_, old), (_, new))) in before.iter().zip(chains(&learner)).enumerate()
            {
                if old.negative != new.negative || VISITED.contains(&new.negative.pair().0) {
                    continue;
                }
                let image = graph.image(new.negative).expect("all pairs are there");
                let own = vector(&next.pixels[position * PIXELS..(position + 1) * PIXELS]);
                let carried = vector(&view(image, step));
                let score = beta * own.iter().zip(&carried).map(|(a, b)| a * b).sum::<f32>();
                assert_eq!(
                    (new.step, new.visits_since_move),
                    (step as u32, old.visits_since_move + 1),
                    "{config:?}"
                );
                // A score up to 300, summed in another order.
                assert!(
                    (new.log_score - score).abs() < 1e-3,
                    "{config:?}: {} {score}",
                    new.log_score
                );
                stayed += 1;
            }
        }
        assert!(stayed > 0, "{config:?}: no chain stayed");
    }
}

/// A chain of pair 5's anchor on image 0 as pair 1 holds it, in a batch that holds the image as pair 0's.
fn on_shared_image(learner: &Learner) -> SlotKey {
    let (anchor, negative) = (SlotKey::from_packed(10), SlotKey::from_packed(2));
    let state = ChainState {
        negative,
        log_score: 1e4,
        step: 1,
        visits: 1,
        visits_since_move: 0,
    };
    learner.table.put(anchor, state);
    negative
}

#[test]
fn a_carried_image_that_the_batch_holds_in_another_pair_is_not_encoded_again() {
    let graph = graph(12);
    for config in all_configs() {
        let mut learner = learner(config.clone());
        let mut stayed = 0;
        for step in 9..29 {
            let negative = on_shared_image(&learner);
            let next = batch(&graph, step, &[0, 5]);
            let scores = scores(&learner, &next);
            let store = Store::default();
            assert!(learner.carried(&next.pairs, &graph).is_empty());
            let report = learner
                .step(&next, &graph, &store, 0.0)
                .expect("the step is sound");
            assert_eq!(
                (report.anchors, report.carried_encoded),
                (4, 0),
                "{config:?}"
            );
            let asked = store.asked.into_inner().expect("no test thread panicked");
            assert!(asked.is_empty(), "{config:?}: {asked:?}");
            let state = learner.table.get(SlotKey::from_packed(10));
            let state = state.expect("it was planted");
            if state.negative == negative {
                assert_eq!(state.step, step as u32, "{config:?}");
                // A score up to 10, summed in another order.
                assert!((state.log_score - scores[2][0]).abs() < 1e-4, "{config:?}");
                stayed += 1;
            }
        }
        // A walk leaves for its only proposal, which is the same image or one that counts twice as much.
        let leaves = config.sampler.estimator == Estimator::Walk;
        assert!(stayed > 0 || leaves, "{config:?}: no chain stayed");
    }
}

#[test]
fn a_state_on_another_slot_of_an_image_of_the_batch_weighs_on_that_image() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Refreshed));
    on_shared_image(&learner);
    let batch = batch(&graph, 9, &[0, 5]);
    let scores = scores(&learner, &batch);
    // Image 0 has two slots, image 1 one. The state is in both subsets, beside pair 0's image 0 or its image 1.
    let (zero, one) = (scores[2][0].exp() / 2.0, scores[2][1].exp());
    let state = (0.5 + zero / (zero + one)) / 2.0;
    let weights = [state + 0.25, one / (zero + one) / 2.0];
    let fresh = |i: usize, others: [usize; 2]| (scores[i][others[0]] + scores[i][others[1]]) / 2.0;
    let positives: f32 = (0..4).map(|i| scores[i][i ^ 1]).sum();
    let negatives = fresh(0, [2, 3])
        + fresh(1, [2, 3])
        + weights[0] * scores[2][0]
        + weights[1] * scores[2][1]
        + fresh(3, [0, 1]);
    let report = learner
        .step(&batch, &graph, &Store::default(), 1e-3)
        .expect("the step is sound");
    let expected = (negatives - positives) / 4.0;
    // Scores up to 10, summed in another order.
    assert!(
        (report.loss - expected).abs() < 1e-4,
        "{} {expected}",
        report.loss
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
        assert_eq!(
            report.encode_seconds, 0.0,
            "there is nothing to encode it for"
        );
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
}

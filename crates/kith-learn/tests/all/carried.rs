//! Carried negatives: chain states outside the batch, or under another slot of an image of the batch.

use kith_learn::{LearnConfig, LearnError, Learner, STAGE_NORMS_EVERY, Scores};
use kith_mcmc::{ChainState, Estimator, ImageKey, PairEntry, PairKey, Side, SlotKey};

use crate::learn::state;
use crate::tiny::{
    PIXELS, Store, all_configs, batch, config, encodes_all, graph, learner, scores, view,
};

/// The pairs of a batch.
const VISITED: [u32; 4] = [6, 8, 9, 11];

/// Gives the batch's anchors chains whose states are outside the batch and have a score that is hard to exceed.
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
fn a_carried_negative_that_became_a_positive_is_dropped() {
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
            graph.insert(PairKey(100 + anchor), PairEntry::new(images, None));
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
            // An image that the budget left out is not found missing: its chain stays as it was.
            assert!(fresh || !asked.contains(&image), "{config:?}: {state:?}");
        }
    }
}

#[test]
fn a_step_whose_carried_images_cannot_be_read_for_now_changes_nothing() {
    let graph = graph(12);
    for config in all_configs().into_iter().filter(encodes_all) {
        let mut learner = learner(config.clone());
        plant(&learner);
        let before = state(&learner);
        let away = Store {
            fails: true,
            ..Store::default()
        };
        let next = batch(&graph, 9, &VISITED);
        let error = learner.step(&next, &graph, &away, 1e-3);
        assert!(
            matches!(error, Err(LearnError::Unreadable(_))),
            "{config:?}: {error:?}"
        );
        assert!(state(&learner) == before, "{config:?}");
    }
}

#[test]
fn a_chain_that_stays_on_an_encoded_negative_gets_its_current_score() {
    let graph = graph(12);

    for config in all_configs().into_iter().filter(encodes_all) {
        // A large β, so that a walk sometimes keeps its state.
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
                    .towers
                    .get(Side::Anchor)
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

#[test]
fn what_is_stored_with_a_chain_is_compared_with_the_score_of_now() {
    let graph = graph(12);
    for config in all_configs().into_iter().filter(encodes_all) {
        let beta = config.beta;
        let mut learner = learner(config.clone());
        plant(&learner);
        let next = batch(&graph, 9, &VISITED);
        let embed = |pixels: &[f32]| {
            let encoder = learner.towers.get(Side::Anchor);
            encoder.forward(pixels).expect("it encodes").embedding.data
        };
        let mut fresh = 0.0;
        for (position, (_, state)) in chains(&learner).into_iter().enumerate() {
            let image = graph.image(state.negative).expect("all pairs are there");
            let own = embed(&next.pixels[position * PIXELS..(position + 1) * PIXELS]);
            let carried = embed(&view(image, 9));
            fresh += beta * own.iter().zip(&carried).map(|(a, b)| a * b).sum::<f32>();
        }
        let report = learner.step(&next, &graph, &Store::default(), 1e-3);
        let report = report.expect("the step is sound");
        let wanted = 1e4 - fresh / chains(&learner).len() as f32;
        // A number of this size is a multiple of 0.001.
        let off = (report.stored_minus_fresh - wanted).abs();
        assert!(off < 0.01, "{config:?}: {off}");
    }
}

#[test]
fn the_norms_of_the_stages_are_measured_now_and_then_and_make_up_that_of_all() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Stored));
    for step in STAGE_NORMS_EVERY - 1..=STAGE_NORMS_EVERY {
        let next = batch(&graph, step, &VISITED);
        let report = learner.step(&next, &graph, &Store::default(), 1e-3);
        let report = report.expect("the step is sound");
        let measured = step == STAGE_NORMS_EVERY;
        assert_eq!(report.stage_norms.is_some(), measured, "{step}");
        if let Some(norms) = report.stage_norms {
            let all = norms.each().into_iter().map(|(_, norm)| norm);
            let off = all.reduce(f32::hypot).expect("there are stages") / report.gradient_norm;
            // Six roundings of 6·10⁻⁸.
            assert!((off - 1.0).abs() < 1e-6, "{off}");
        }
    }
}

/// Gives pair 5's anchor a chain whose state is image 0 in pair 1, for a batch that has the image in pair 0.
fn plant_on_shared_image(learner: &Learner) -> SlotKey {
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
fn a_carried_image_that_the_batch_has_in_another_pair_is_not_encoded_again() {
    let graph = graph(12);
    for config in all_configs() {
        let mut learner = learner(config.clone());
        let mut stayed = 0;
        for step in 9..29 {
            let negative = plant_on_shared_image(&learner);
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
        // A walk accepts its only proposal, which is the same image or one that counts twice as much.
        let leaves = config.sampler.estimator == Estimator::Walk;
        assert!(stayed > 0 || leaves, "{config:?}: no chain stayed");
    }
}

#[test]
fn a_state_on_another_slot_of_an_image_of_the_batch_weighs_on_that_image() {
    let graph = graph(12);
    let mut learner = learner(config(Estimator::Subset, Scores::Refreshed));
    plant_on_shared_image(&learner);
    let batch = batch(&graph, 9, &[0, 5]);
    let scores = scores(&learner, &batch);
    // Image 0 has two slots, image 1 one. The state is in both subsets, together with pair 0's image 0 or image 1.
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

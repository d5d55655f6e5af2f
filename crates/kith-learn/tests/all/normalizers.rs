//! SCENT and NeuCLIP on single steps: gradients and values by their definitions, dual variables, and the life of prototypes.

use std::collections::HashSet;

use kith_learn::{LearnConfig, Learner, NeuClipConfig, ObjectiveKind, Prototypes};
use kith_mcmc::{ChainState, PairKey, SlotKey};

use crate::{
    objectives::{Fixed, PAIRS, fixed_batch, of, plain, relative_error, scores},
    tiny::{batch, learner},
};

fn scent(step_size: f32) -> LearnConfig {
    LearnConfig {
        scent_alpha: step_size,
        ..of(ObjectiveKind::Scent)
    }
}

/// Sets the anchor's dual variable.
fn plant(learner: &Learner, slot: u32, nu: f64) {
    let slot = SlotKey::from_packed(slot);
    let state = ChainState {
        negative: slot,
        log_score: nu as f32,
        step: 0,
        visits: 1,
        visits_since_move: 0,
    };
    learner.table.put(slot, state);
}

#[test]
fn scent_has_the_gradient_of_the_global_loss_where_its_duals_are_the_log_normalizers() {
    let graph = plain();
    let mut learner = learner(scent(0.3));
    // The first visit sets them, the second one finds them where they should be.
    for visit in 0..2 {
        let error = relative_error(&mut learner, &graph, PAIRS);
        // f32 sums in another order.
        assert!(error < 1e-4, "visit {visit}: {error}");
    }
    // The control: duals that are too low by ln 2 double the negative term, and a step so small leaves them there.
    let mut learner = crate::tiny::learner(scent(1e-6));
    let scores = scores(&learner, &fixed_batch(0, 0..PAIRS));
    for slot in 0..2 * PAIRS {
        let own = slot as usize;
        let others = (0..2 * PAIRS as usize).filter(|other| other / 2 != own / 2);
        let mean = others.map(|other| scores[own][other].exp()).sum::<f64>() / 14.0;
        plant(&learner, slot, mean.ln() - 2_f64.ln());
    }
    assert!(relative_error(&mut learner, &graph, PAIRS) > 0.1);
}

#[test]
fn scent_moves_its_duals_by_mirror_descent_and_reports_the_joint_objective() {
    let graph = plain();
    let alpha = 0.25;
    let mut learner = learner(scent(alpha as f32));
    let mut duals: [Option<f64>; 4] = [None; 4];
    for step in 0..4 {
        let batch = batch(&graph, step, &[3, 5]);
        let scores = scores(&learner, &batch);
        let mut expected = 0.0;
        for (i, dual) in duals.iter_mut().enumerate() {
            let others = if i < 2 { [2, 3] } else { [0, 1] };
            let mean = others.iter().map(|j| scores[i][*j].exp()).sum::<f64>() / 2.0;
            let nu = dual.map_or(mean.ln(), |nu: f64| {
                nu + ((1.0 + alpha * mean) / (1.0 + alpha * nu.exp())).ln()
            });
            *dual = Some(nu);
            expected += (mean * (-nu).exp() + nu - 1.0 - scores[i][i ^ 1]) / 4.0;
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
        for (slot, dual) in [6, 7, 10, 11].into_iter().zip(duals) {
            let slot = SlotKey::from_packed(slot);
            let state = learner.table.get(slot).expect("it was visited");
            assert!((f64::from(state.log_score) - dual.expect("it was set")).abs() < 1e-4);
            assert_eq!((state.negative, state.visits), (slot, step as u32 + 1));
        }
    }
}

#[test]
fn duals_that_are_far_off_neither_overflow_nor_stop_the_steps() {
    let graph = plain();
    for nu in [-1e4, 1e4] {
        let mut learner = learner(scent(0.1));
        (6..14).for_each(|slot| plant(&learner, slot, nu));
        let batch = batch(&graph, 4, &[3, 5, 6]);
        let report = learner
            .step(&batch, &graph, &Fixed, 1e-3)
            .expect("the step is sound");
        assert!(report.loss.is_finite() && report.gradient_norm.is_finite());
        let state = learner.table.get(SlotKey::from_packed(6)).expect("visited");
        assert!(
            f64::from(state.log_score).abs() < nu.abs(),
            "{nu}: {state:?}"
        );
    }
}

fn neuclip(prototypes: usize, updates: u32, restart_steps: u64) -> LearnConfig {
    LearnConfig {
        neuclip: NeuClipConfig {
            prototypes,
            updates,
            rate: 0.03,
            restart_steps,
        },
        ..of(ObjectiveKind::NeuClip)
    }
}

#[test]
fn neuclip_has_the_gradient_of_the_global_loss_where_its_prototypes_are_all_images() {
    let graph = plain();
    // The first visit takes the batch's mean; at the second the prototypes are all images, and the updates find nothing to do.
    let mut all = learner(neuclip(16, 10, 500));
    for visit in 0..2 {
        let error = relative_error(&mut all, &graph, PAIRS);
        // f32 sums in another order.
        assert!(error < 1e-3, "visit {visit}: {error}");
    }
    assert_eq!(all.prototypes.len(), 16);
    // The control: two prototypes that do not learn are a sample of the images.
    let mut sampled = learner(neuclip(2, 0, 500));
    relative_error(&mut sampled, &graph, PAIRS);
    assert!(relative_error(&mut sampled, &graph, PAIRS) > 0.02);
}

#[test]
fn the_first_step_of_neuclip_is_the_batchs_mean_and_leaves_its_images_as_prototypes() {
    let graph = plain();
    let mut learner = learner(neuclip(6, 10, 500));
    let first = batch(&graph, 0, &[3, 5]);
    let rows = scores(&learner, &first);
    let term = |i: usize| {
        let others = if i < 2 { [2, 3] } else { [0, 1] };
        let mean = others.iter().map(|j| rows[i][*j].exp()).sum::<f64>() / 2.0;
        (mean.ln() - rows[i][i ^ 1]) / 4.0
    };
    let expected: f64 = (0..4).map(term).sum();
    let report = learner.step(&first, &graph, &Fixed, 1e-3).expect("a step");
    // Scores up to 10 in f32.
    assert!((f64::from(report.loss) - expected).abs() < 1e-4);
    assert_eq!(learner.prototypes.len(), 4);
    for step in 1..4 {
        let pairs = [step as u32, 4 + step as u32];
        let report = learner.step(&batch(&graph, step, &pairs), &graph, &Fixed, 1e-3);
        assert!(report.expect("a step").loss.is_finite());
        assert_eq!(learner.prototypes.len(), 6, "they are bounded");
    }
}

/// Packed slots that the prototypes began as.
fn sources(prototypes: &Prototypes) -> Vec<u32> {
    let arrays = prototypes.to_arrays();
    let array = arrays.iter().find(|array| array.name.ends_with("sources"));
    let halves = array.map_or(&[][..], |array| &array.data);
    halves
        .chunks_exact(2)
        .map(|halves| halves[0] as u32 + ((halves[1] as u32) << 16))
        .collect()
}

#[test]
fn prototypes_begin_anew_in_turn_and_forget_erased_pairs() {
    let graph = plain();
    let mut learner = learner(neuclip(8, 1, 4));
    let mut seen = Vec::new();
    for step in 0..12 {
        let pairs = [step as u32 % 8, (step as u32 + 3) % 8];
        let next = batch(&graph, step, &pairs);
        learner.step(&next, &graph, &Fixed, 1e-3).expect("a step");
        seen.push(sources(&learner.prototypes));
    }
    // Two in each step once there are eight, so none is older than four steps.
    for (before, after) in seen[3..].iter().zip(&seen[4..]) {
        let changed = before.iter().zip(after).filter(|(a, b)| a != b).count();
        assert!((1..=2).contains(&changed), "{before:?} {after:?}");
    }
    let mut erased = graph;
    let removed = HashSet::from([PairKey(seen[11][0] / 2)]);
    removed.iter().for_each(|pair| _ = erased.remove(*pair));
    learner.forget(&removed, &erased);
    let left = sources(&learner.prototypes);
    assert!(left.len() < 8 && left.iter().all(|slot| slot / 2 != seen[11][0] / 2));
}

#[test]
fn neuclip_goes_on_bit_for_bit_from_its_arrays() {
    let graph = plain();
    let steps = |learner: &mut Learner, steps: std::ops::Range<u64>| {
        for step in steps {
            let pairs = [1, 4, 6].map(|pair| (pair + 5 * step as u32) % 8);
            let next = batch(&graph, step, &pairs);
            learner.step(&next, &graph, &Fixed, 1e-3).expect("a step");
        }
    };
    let (mut straight, mut resumed) = (learner(neuclip(8, 3, 4)), learner(neuclip(8, 3, 4)));
    steps(&mut straight, 0..4);
    steps(&mut resumed, 0..4);
    let mut arrays = resumed.prototypes.to_arrays();
    resumed.prototypes = Prototypes::take_from(&mut arrays, 16).expect("they fit");
    steps(&mut straight, 4..8);
    steps(&mut resumed, 4..8);
    assert!(straight.prototypes == resumed.prototypes);
    let weights = |learner: &Learner| learner.towers.to_arrays().expect("weights");
    assert!(weights(&straight) == weights(&resumed));
    // The control: without them the weights differ.
    let mut lost = learner(neuclip(8, 3, 4));
    steps(&mut lost, 0..4);
    lost.prototypes = Prototypes::default();
    steps(&mut lost, 4..8);
    assert!(weights(&straight) != weights(&lost));
}

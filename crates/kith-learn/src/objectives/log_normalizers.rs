//! Compares what objectives hold for the log normalisers of anchors with the exact ones, on frozen embeddings.

use super::batch_mean::BatchMean;
use crate::{
    NeuClipConfig, ObjectiveKind, Prototypes,
    anchor::{Anchor, StepScores},
    frozen::{DIM, Memory, PAIRS, World},
    trial::{BETA, Trial},
};
use kith_mcmc::{Estimator::Subset, SlotKey};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What so many epochs in batches of 8 leave.
fn after(world: &World, trial: &Trial, epochs: u64) -> Memory {
    let mut memory = Memory::new(trial, &world.graph);
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut order: Vec<u32> = (0..PAIRS).collect();
    let mut step = 0;
    for _ in 0..epochs {
        order.shuffle(&mut random);
        for pairs in order.chunks_exact(8) {
            world.step(trial, &mut memory, step, pairs);
            step += 1;
        }
    }
    memory
}

/// Root of the mean squared distance of `held`, one for each anchor, from the exact log normalisers.
fn error(world: &World, held: impl Fn(u32) -> f64) -> f64 {
    let square = |anchor: u32| (held(anchor) - world.log_normalizer(anchor)).powi(2);
    let sum: f64 = (0..2 * PAIRS).map(square).sum();
    (sum / f64::from(2 * PAIRS)).sqrt()
}

#[test]
fn the_dual_variables_of_scent_converge_to_the_log_normalizers() {
    let world = World::new();
    let error = |step_size: f32, epochs: u64| {
        let mut trial = Trial::new(ObjectiveKind::Scent, Subset, 8);
        trial.config.scent_alpha = step_size;
        let memory = after(&world, &trial, epochs);
        let state = |anchor: u32| memory.table.get(SlotKey::from_packed(anchor));
        error(&world, |anchor| {
            f64::from(state(anchor).expect("it was visited").log_score)
        })
    };
    let (first, later) = (error(0.01, 1), error(0.01, 400));
    let large = error(1.0, 400);
    println!("one visit {first}, 400 visits {later}, with larger steps {large}");
    // A batch of 14 negatives is off by 0.5; steps of 0.01 average about 50 visits.
    assert!(later < 0.12 && later < 0.25 * first, "{first} {later}");
    assert!(large > 2.0 * later, "{large} {later}");
}

fn neuclip(updates: u32) -> Trial {
    let mut trial = Trial::new(ObjectiveKind::NeuClip, Subset, 8);
    trial.config.neuclip = NeuClipConfig {
        prototypes: 24,
        updates,
        rate: 0.03,
        restart_steps: 1_000_000,
    };
    trial
}

#[test]
fn the_network_of_neuclip_learns_the_log_normalizers() {
    let world = World::new();
    let all: Vec<u32> = (0..PAIRS).collect();
    let scored = world.scored(&all);
    let error = |updates: u32, epochs: u64| {
        let prototypes = after(&world, &neuclip(updates), epochs).prototypes;
        assert_eq!(prototypes.len(), 24);
        let inputs = prototypes.inputs(scored.step_scores(&world.graph, 1));
        let predicted = prototypes.predict(&inputs);
        error(&world, |anchor| {
            predicted[anchor as usize].expect("a prototype counts")
        })
    };
    let (sampled, trained) = (error(0, 100), error(10, 100));
    println!("a sample of 24 {sampled}, trained {trained}");
    // The network has 24 prototypes for the normalisers over 128 images.
    assert!(
        trained < 0.2 && trained < 0.4 * sampled,
        "{sampled} {trained}"
    );
}

/// The mean over anchors of exp(z − ν) + ν by its definition, in `f64`.
fn conjugate(world: &World, prototypes: &Prototypes, step: StepScores<'_>) -> f64 {
    let values: Vec<f64> = prototypes
        .values
        .iter()
        .map(|value| f64::from(*value))
        .collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let term = |position: usize| {
        let anchor = Anchor::new(step, position);
        let z = BatchMean::new(&anchor)
            .expect("there are negatives")
            .log_mean;
        let positives = world.graph.positives(anchor.visit.anchor);
        let row = step.embeddings.with_grad.row(position);
        let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let (mut sum, mut count) = (0.0, 0.0);
        for (place, value) in values.chunks_exact(DIM).enumerate() {
            if !positives.excludes(prototypes.sources[place]) {
                let cosine = dot(&row, value) / dot(value, value).sqrt();
                let repetition = f64::from(prototypes.log_repetitions[place]);
                sum += (f64::from(BETA) * cosine - repetition).exp();
                count += 1.0;
            }
        }
        let nu = f64::ln(sum / count);
        (z - nu).exp() + nu
    };
    let anchors = step.layout.slots.len();
    (0..anchors).map(term).sum::<f64>() / anchors as f64
}

#[test]
fn an_update_of_the_prototypes_follows_the_gradient_of_the_conjugate() {
    let world = World::new();
    // Of any length, as training leaves them.
    let mut prototypes = after(&world, &neuclip(10), 3).prototypes;
    let scored = world.scored(&[0, 5, 7, 9, 20, 33]);
    let step = scored.step_scores(&world.graph, 1);
    let inputs = prototypes.inputs(step);
    let targets: Vec<Option<f64>> = (0..12)
        .map(|position| Some(BatchMean::new(&Anchor::new(step, position))?.log_mean))
        .collect();
    let before = prototypes.clone();
    // Beside such sums AdaGrad moves along the gradient by a thousandth of it.
    prototypes.squares.fill(1e6);
    prototypes.update(&inputs, &targets, 1.0);
    let mut largest = 0.0_f64;
    for place in (0..before.values.len()).step_by(7) {
        let at = |by: f32| {
            let mut moved = before.clone();
            moved.values[place] += by;
            conjugate(&world, &moved, step)
        };
        let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
        let moved = 1e3 * f64::from(before.values[place] - prototypes.values[place]);
        // f32 values near 1 that move by less than a thousandth; central differences.
        assert!((moved - slope).abs() < 2e-4, "{place}: {moved} {slope}");
        largest = largest.max(slope.abs());
    }
    assert!(largest > 0.01, "{largest}");
}

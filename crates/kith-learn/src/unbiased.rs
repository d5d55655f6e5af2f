//! Compares the gradients of steps with the exact one on frozen embeddings. For EMC² the mean over many steps is ∇L at any batch size; for
//! each fault that an implementation could have it is not.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    LearnConfig, ObjectiveKind,
    frozen::{Memory, Outcome, PAIRS, World},
    trial::{Fault, Trial},
};
use kith_mcmc::{
    Estimator::{self, Subset, Walk},
    GroupKey, ImageKey, PairEntry, PairGraph, PairKey, PairWeight, Recency, Side, SlotKey,
};

fn emc2(estimator: Estimator, batch: usize) -> Trial {
    Trial::new(ObjectiveKind::Emc2, estimator, batch)
}

/// Steps whose cost is about the same at all batch sizes.
fn steps(batch: usize) -> u64 {
    32_000 / batch as u64
}

fn run(world: &World, trial: &Trial) -> Outcome {
    let outcome = world.run(trial, steps(trial.batch));
    show(trial, &outcome);
    outcome
}

/// With `--nocapture`: the figures of docs/emc2.md.
fn show(trial: &Trial, outcome: &Outcome) {
    let LearnConfig {
        objective, sampler, ..
    } = &trial.config;
    println!(
        "{objective:?} {:?} b = {} {:?}: {outcome:?}",
        sampler.estimator, trial.batch, trial.fault
    );
}

#[test]
fn emc2_has_the_gradient_of_the_global_loss_at_any_batch_size() {
    let world = World::new();
    for (estimator, batch) in [
        (Subset, 4),
        (Subset, 8),
        (Subset, 32),
        (Walk, 4),
        (Walk, 8),
        (Walk, 32),
    ] {
        let bias = run(&world, &emc2(estimator, batch)).bias;
        // The noise of so many steps; at b = 4 a chain needs some eight visits to forget. InfoNCE's bias is 0.17 to 0.25.
        let bound = if batch == 4 { 0.07 } else { 0.05 };
        assert!(bias < bound, "{estimator:?}, b = {batch}: {bias}");
    }
}

#[test]
fn both_directions_of_two_towers_have_the_gradient_of_the_global_loss() {
    let world = World::directed();
    for (estimator, batch) in [(Subset, 4), (Subset, 8), (Walk, 4), (Walk, 8)] {
        let outcome = run(&world, &emc2(estimator, batch));
        let bound = if batch == 4 { 0.08 } else { 0.06 };
        assert!(
            outcome.bias < bound,
            "{estimator:?}, b = {batch}: {outcome:?}"
        );
        let dropping = emc2(estimator, batch).with(Fault::DropsCarried);
        let dropping = run(&world, &dropping).bias;
        assert!(dropping > 0.1, "{estimator:?}, b = {batch}: {dropping}");
    }
    let exact = Trial::new(ObjectiveKind::Exact, Subset, 8);
    let exact = world.run(&exact, 100);
    // f32 sums.
    assert!(exact.bias < 1e-4 && exact.variance < 1e-6, "{exact:?}");
}

#[test]
fn a_chain_of_two_towers_stands_on_the_other_side_only() {
    let world = World::directed();
    for estimator in [Subset, Walk] {
        let trial = emc2(estimator, 8);
        let mut memory = Memory::new(&trial, &world.graph);
        for step in 0..64 {
            let pairs: Vec<u32> = (0..8).map(|k| (8 * step + 11 * k) % PAIRS).collect();
            world.step(&trial, &mut memory, step.into(), &pairs);
        }
        assert!(memory.table.len() > 100);
        for anchor in (0..2 * PAIRS).map(SlotKey::from_packed) {
            if let Some(state) = memory.table.get(anchor) {
                assert_ne!(anchor.side(), state.negative.side(), "{estimator:?}");
            }
        }
    }
}

/// Half of the pairs weigh a tenth of the others, and one weighs four times as much.
fn weighted() -> World {
    let weight = |pair| match pair {
        9 => 4.0,
        pair if pair % 2 == 0 => 0.1,
        _ => 1.0,
    };
    World::weighted(|pair| PairWeight::new(weight(pair)).expect("it is in range"))
}

/// Where pairs are drawn unequally: the mean of the estimates is the gradient of their anchors, and the mean of these is ∇L.
fn assert_unbiased(world: &World, trial: &Trial) {
    let outcome = run(world, trial);
    assert!(outcome.bias < 0.08, "{trial:?}: {outcome:?}");
    assert!(outcome.draw_bias < 0.05, "{trial:?}: {outcome:?}");
}

fn assert_ignoring_odds_is_biased(world: &World) {
    for estimator in [Subset, Walk] {
        let outcome = run(world, &emc2(estimator, 4).with(Fault::IgnoresOdds));
        assert!(outcome.bias > 0.1, "{estimator:?}: {outcome:?}");
    }
}

#[test]
fn weighted_pairs_have_the_gradient_of_the_weighted_loss() {
    let world = weighted();
    for (estimator, batch) in [(Subset, 4), (Subset, 8), (Walk, 4), (Walk, 8)] {
        assert_unbiased(&world, &emc2(estimator, batch));
    }
}

#[test]
fn ignoring_that_light_pairs_are_proposed_seldom_is_biased() {
    assert_ignoring_odds_is_biased(&weighted());
}

/// Every fourth pair is recent, and drawn five times as often as the others.
fn with_recent() -> World {
    let recency = Recency {
        after: PairKey(PAIRS - PAIRS / 4 - 1),
        log_odds: 5.0_f32.ln(),
    };
    World::new().with_recent(recency)
}

#[test]
fn recent_pairs_have_the_gradient_of_the_loss_in_which_they_count_more() {
    let world = with_recent();
    for estimator in [Subset, Walk] {
        assert_unbiased(&world, &emc2(estimator, 4));
    }
}

#[test]
fn ignoring_that_recent_pairs_are_proposed_often_is_biased() {
    assert_ignoring_odds_is_biased(&with_recent());
}

#[test]
fn the_error_of_the_mean_falls_like_one_over_the_root_of_the_steps() {
    let world = World::new();
    for estimator in [Subset, Walk] {
        let trial = emc2(estimator, 4);
        let error = |steps| world.run(&trial, steps).bias;
        let (few, many) = (error(500), error(8_000));
        // A quarter is expected of sixteen times the steps.
        let ratio = many / few;
        assert!((0.15..0.4).contains(&ratio), "{estimator:?}: {few} {many}");
    }
}

#[test]
fn infonce_stays_at_its_bias() {
    let world = World::new();
    let bias = |steps| {
        let trial = Trial::new(ObjectiveKind::InfoNce, Subset, 4);
        world.run(&trial, steps).bias
    };
    let (few, many) = (bias(2_000), bias(8_000));
    assert!(many > 0.2 && many > 0.9 * few, "{few} {many}");
}

#[test]
fn a_cache_that_is_never_stale_has_the_gradient_of_the_global_loss() {
    let world = World::new();
    let cache = Trial::new(ObjectiveKind::NegativeCache, Subset, 8);
    let bias = run(&world, &cache).bias;
    assert!(bias < 0.05, "{bias}");
    let exact = Trial::new(ObjectiveKind::Exact, Subset, 8);
    let exact = world.run(&exact, 100);
    // f32 sums.
    assert!(exact.bias < 1e-4 && exact.variance < 1e-6, "{exact:?}");
}

#[test]
fn sogclr_comes_nearer_than_infonce_the_longer_its_average_and_is_not_there() {
    let world = World::new();
    let infonce = run(&world, &Trial::new(ObjectiveKind::InfoNce, Subset, 4)).bias;
    let sogclr = |gamma| {
        let mut trial = Trial::new(ObjectiveKind::SogClr, Subset, 4);
        trial.config.sogclr_gamma = gamma;
        run(&world, &trial).bias
    };
    let (short, long) = (sogclr(0.9), sogclr(0.1));
    assert!(long < short && short < infonce, "{long} {short} {infonce}");
    assert!(short > 0.1, "{short}");
}

#[test]
fn scent_comes_nearer_the_smaller_its_steps_and_varies_more_than_the_subset_kernel() {
    let world = World::new();
    let scent = |step_size| {
        let mut trial = Trial::new(ObjectiveKind::Scent, Subset, 4);
        trial.config.scent_alpha = step_size;
        run(&world, &trial)
    };
    let (large, small) = (scent(1.0), scent(0.01));
    // Noise of so many steps is about 0.03.
    assert!(
        small.bias < 0.06 && small.bias < 0.4 * large.bias,
        "{small:?} {large:?}"
    );
    let subset = run(&world, &emc2(Subset, 4)).variance;
    let least = small.variance.min(large.variance);
    assert!(subset < 0.7 * least, "{subset} {least}");
}

#[test]
fn neuclip_comes_as_near_as_small_steps_of_scent_and_varies_more_than_the_subset_kernel() {
    let world = World::new();
    let neuclip = run(&world, &Trial::new(ObjectiveKind::NeuClip, Subset, 4));
    // The noise of so many steps, as for the walk.
    assert!(neuclip.bias < 0.07, "{neuclip:?}");
    let subset = run(&world, &emc2(Subset, 4)).variance;
    assert!(subset < 0.5 * neuclip.variance, "{subset} {neuclip:?}");
    // The control: a network of eight prototypes that does not learn.
    let mut sampled = Trial::new(ObjectiveKind::NeuClip, Subset, 4);
    (
        sampled.config.neuclip.prototypes,
        sampled.config.neuclip.updates,
    ) = (8, 0);
    let sampled = run(&world, &sampled).bias;
    assert!(sampled > 0.12, "{sampled}");
}

#[test]
fn normalizers_of_two_towers_are_those_over_the_other_side() {
    let world = World::directed();
    for objective in [ObjectiveKind::Scent, ObjectiveKind::NeuClip] {
        let mut trial = Trial::new(objective, Subset, 8);
        trial.config.scent_alpha = 0.01;
        let outcome = run(&world, &trial);
        assert!(outcome.bias < 0.06, "{objective:?}: {outcome:?}");
    }
    let infonce = Trial::new(ObjectiveKind::InfoNce, Subset, 8);
    let biased = run(&world, &infonce).bias;
    assert!(biased > 0.15, "{biased}");
}

#[test]
fn encoding_only_some_of_the_carried_negatives_keeps_the_gradient_and_costs_variance() {
    let world = World::new();
    for estimator in [Subset, Walk] {
        let all = emc2(estimator, 4);
        let some = Trial {
            config: LearnConfig {
                carried_budget: 0.25,
                roulette: 0.8,
                ..all.config.clone()
            },
            ..all.clone()
        };
        let (all, some) = (run(&world, &all), run(&world, &some));
        // Noise again, of up to three times the variance.
        assert!(some.bias < 0.08, "{estimator:?}: {some:?}");
        assert!(
            some.variance > 1.05 * all.variance,
            "{estimator:?}: {all:?} {some:?}"
        );
    }
}

#[test]
fn dropping_the_carried_negatives_is_biased() {
    let world = World::new();
    for estimator in [Subset, Walk] {
        let bias = run(&world, &emc2(estimator, 4).with(Fault::DropsCarried)).bias;
        assert!(bias > 0.1, "{estimator:?}: {bias}");
    }
}

#[test]
fn dividing_by_the_proposals_is_biased() {
    let trial = emc2(Walk, 8).with(Fault::DividesByProposals);
    let bias = run(&World::new(), &trial).bias;
    assert!(bias > 0.2, "{bias}");
}

#[test]
fn warm_chains_beat_cold_ones_at_the_same_steps() {
    let world = World::new();
    for estimator in [Subset, Walk] {
        let warm = run(&world, &emc2(estimator, 4)).bias;
        let cold = run(&world, &emc2(estimator, 4).with(Fault::Cold)).bias;
        assert!(cold > 3.0 * warm, "{estimator:?}: {warm} {cold}");
    }
}

#[test]
fn the_subset_kernel_varies_less_than_the_walk_and_little_more_than_infonce() {
    let world = World::new();
    for batch in [4, 8, 32] {
        let variance = |trial: &Trial| run(&world, trial).variance;
        let subset = variance(&emc2(Subset, batch));
        let walk = variance(&emc2(Walk, batch));
        let infonce = variance(&Trial::new(ObjectiveKind::InfoNce, Subset, batch));
        assert!(subset < 0.6 * walk, "b = {batch}: {subset} {walk}");
        assert!(subset < 1.5 * infonce, "b = {batch}: {subset} {infonce}");
    }
}

#[test]
fn the_two_sides_of_a_pair_have_chains_of_their_own() {
    let world = World::new();
    for estimator in [Subset, Walk] {
        let trial = emc2(estimator, 8);
        let mut memory = Memory::new(&trial, &world.graph);
        let mut together = 0;
        for step in 0..400 {
            // Pair 7 is one image twice: both of its sides have one and the same target.
            let first = 8 + 7 * (step as u32 % 8);
            let pairs: Vec<u32> = std::iter::once(7).chain(first..first + 7).collect();
            world.step(&trial, &mut memory, step, &pairs);
            let [a, b] = [14, 15].map(|slot| {
                memory
                    .table
                    .get(SlotKey::from_packed(slot))
                    .expect("it was visited")
            });
            together += u32::from(a.negative == b.negative);
        }
        // One chain for both, or one seed for both, would be together in all of the visits.
        assert!(together < 200, "{estimator:?}: {together} of 400");
    }
}

#[test]
fn no_chain_ever_moves_to_what_became_forbidden_or_was_removed() {
    for estimator in [Subset, Walk] {
        let (trial, mut world) = (emc2(estimator, 6), World::new());
        let mut memory = Memory::new(&trial, &world.graph);
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for step in 0..600 {
            change(&mut world.graph, &memory, &mut random);
            let mut there: Vec<u32> = (0..PAIRS)
                .filter(|pair| world.graph.get(PairKey(*pair)).is_some())
                .collect();
            let (pairs, _) = there.partial_shuffle(&mut random, 6);
            world.step(&trial, &mut memory, step, pairs);
            for slot in pairs.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]) {
                let anchor = SlotKey::from_packed(slot);
                let Some(state) = memory.table.get(anchor) else {
                    continue;
                };
                // A visit without any candidate writes nothing: only states of this step count.
                let written = state.step == step as u32;
                let forbidden = world.graph.positives(anchor).excludes(state.negative);
                assert!(
                    !(written && forbidden),
                    "{estimator:?}, step {step}: {state:?}"
                );
            }
        }
    }
}

/// Takes a pair out, or puts one in; or makes a chain's negative a known positive. The table is not told.
fn change(graph: &mut PairGraph, memory: &Memory, random: &mut ChaCha8Rng) {
    let pair = PairKey(random.random_range(0..PAIRS));
    let images = [(); 2].map(|()| ImageKey(random.random_range(0..2 * PAIRS)));
    let state = memory.table.get(SlotKey::new(pair, Side::Anchor));
    if random.random_bool(0.3) {
        let group = random.random_bool(0.2).then_some(GroupKey(2));
        graph.remove(pair);
        graph.insert(pair, PairEntry::new(images, group));
    } else if let Some((anchor, entry)) = state.zip(graph.get(pair))
        && let Some(negative) = graph.image(anchor.negative)
    {
        let images = [entry.images[0], negative];
        let added = PairKey(1000 + random.random_range(0..8));
        graph.remove(added);
        graph.insert(added, PairEntry::new(images, None));
    } else if graph.len() > 20 {
        graph.remove(pair);
    }
}

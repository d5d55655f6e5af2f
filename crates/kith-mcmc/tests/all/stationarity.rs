//! Long runs over fixed scores: the weights of very many visits approach the softmax over all candidates. Each bound has a control that
//! must miss it.

use kith_mcmc::{
    SamplerConfig, Side,
    simulation::{Chain, PlainWalk, Sampler, World},
};
use rayon::prelude::*;

use crate::configs::{BOTH, SUBSET, WALK};

const PAIRS: usize = 64;
const BATCH: usize = 8;
const VISITS: u64 = 100_000;
const ANCHORS: u64 = 8;

/// Mean over the anchors of the distance, each with scores and batches of its own.
fn mean_distance<C: Chain>(
    world: impl Fn(u64) -> World + Sync,
    chain: impl Fn() -> C + Sync,
) -> f64 {
    let distances: Vec<f64> = (0..ANCHORS)
        .into_par_iter()
        .map(|seed| world(seed).distances(&mut chain(), BATCH, seed, &[VISITS])[0])
        .collect();
    distances.iter().sum::<f64>() / ANCHORS as f64
}

fn sampler(config: &SamplerConfig) -> impl Fn() -> Sampler + Sync {
    || Sampler::new(config.clone())
}

fn at(beta: f32) -> impl Fn(u64) -> World + Sync {
    move |seed| World::new(PAIRS, beta, seed)
}

// The bounds: the noise of 10⁵ visits on 126 images (0.004 to 0.01; more where the chain moves seldom), and the walk's own small bias
// from proposing without replacement.

#[test]
fn the_walk_samples_the_softmax() {
    for (beta, bound) in [(1.0, 0.015), (5.0, 0.015), (14.28, 0.03)] {
        let distance = mean_distance(at(beta), sampler(&WALK));
        assert!(distance <= bound, "β = {beta}: {distance}");
    }
}

#[test]
fn the_subset_kernel_samples_the_softmax() {
    for (beta, bound) in [(1.0, 0.01), (5.0, 0.01), (14.28, 0.025)] {
        let distance = mean_distance(at(beta), sampler(&SUBSET));
        assert!(distance <= bound, "β = {beta}: {distance}");
    }
}

/// A quarter of the other side's slots hold one and the same image, which stands on the anchor's side too.
fn directed(side: Side) -> impl Fn(u64) -> World + Sync {
    move |seed| {
        let mut world = World::directed(PAIRS, 5.0, side, seed);
        let other = side.other().index();
        let shared = 8 + other;
        for pair in (4..PAIRS).step_by(4) {
            world.image[2 * pair + other] = shared;
            world.scores[2 * pair + other] = world.scores[shared];
        }
        world.image[2 * 5 + side.index()] = shared;
        world
    }
}

#[test]
fn chains_of_both_sides_sample_the_softmax_over_the_other_side() {
    for side in Side::BOTH {
        for config in [WALK, SUBSET] {
            let distance = mean_distance(directed(side), sampler(&config));
            assert!(distance <= 0.015, "{side:?} {config:?}: {distance}");
            let uncorrected =
                mean_distance(directed(side), || Sampler::uncorrected(config.clone()));
            assert!(uncorrected > 0.03, "{side:?} {config:?}: {uncorrected}");
        }
    }
}

#[test]
fn the_distance_falls_as_visits_add_up() {
    for config in [WALK, SUBSET] {
        let distances = |seed| {
            let mut chain = Sampler::new(config.clone());
            World::new(PAIRS, 5.0, seed).distances(&mut chain, BATCH, seed, &[VISITS / 25, VISITS])
        };
        let all: Vec<Vec<f64>> = (0..ANCHORS).into_par_iter().map(distances).collect();
        let [few, many] = [0, 1].map(|at| all.iter().map(|distances| distances[at]).sum::<f64>());
        // 25 times the visits should leave a fifth of the distance, plus the walk's own bias.
        assert!(many < 0.35 * few, "{config:?}: {few} {many}");
    }
}

#[test]
fn both_views_in_one_walk_miss_it() {
    let distance = mean_distance(at(5.0), sampler(&BOTH));
    assert!(distance > 0.015, "{distance}");
}

#[test]
fn accepting_always_and_proposing_with_replacement_miss_it() {
    for (always_accepts, with_replacement) in [(true, false), (false, true)] {
        let distance = mean_distance(at(5.0), || PlainWalk::new(always_accepts, with_replacement));
        assert!(
            distance > 0.015,
            "{always_accepts} {with_replacement}: {distance}"
        );
    }
    // The same walk without a fault meets it: the controls miss because of their fault.
    let distance = mean_distance(at(5.0), || PlainWalk::new(false, false));
    assert!(distance <= 0.015, "{distance}");
}

/// Every fourth pair's first slot holds one and the same image.
fn uneven(seed: u64) -> World {
    let mut world = World::new(PAIRS, 5.0, seed);
    for pair in (4..PAIRS).step_by(4) {
        world.image[2 * pair] = 8;
        world.scores[2 * pair] = world.scores[8];
    }
    world
}

#[test]
fn an_image_of_many_slots_counts_once() {
    for config in [WALK, SUBSET] {
        let distance = mean_distance(uneven, sampler(&config));
        assert!(distance <= 0.015, "{config:?}: {distance}");
        let uncorrected = mean_distance(uneven, || Sampler::uncorrected(config.clone()));
        assert!(uncorrected > 0.03, "{config:?}: {uncorrected}");
    }
}

#[test]
fn a_masked_image_does_not_lend_its_share_to_its_partner() {
    let half_masked = |seed| {
        let mut world = World::new(PAIRS, 5.0, seed);
        (1..PAIRS / 2).for_each(|pair| world.masked[2 * pair] = true);
        world
    };
    for config in [WALK, SUBSET] {
        let distance = mean_distance(half_masked, sampler(&config));
        assert!(distance <= 0.015, "{config:?}: {distance}");
    }
}

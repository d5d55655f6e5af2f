//! Rules of the sampler that are easily left out, each with a control that leaves it out; chains under an encoder that changes; random
//! tables. `cargo test -p kith-mcmc --test all kernel -- --nocapture` prints the figures of docs/emc2.md.

use std::collections::{BTreeMap, HashSet};

use kith_mcmc::{
    BatchSlot, Carried, ChainState, ChainTable, PairKey, SamplerConfig, SlotKey, Visit,
    simulation::{Chain, DrawnBatch, Sampler, World},
    visit,
};
use kith_seed::mix;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::configs::{BOTH, SUBSET, WALK};

const BATCH: usize = 8;
const VISITS: u64 = 100_000;

/// Mean over eight anchors, each with a seed of its own.
fn mean(of: impl Fn(u64) -> f64 + Sync) -> f64 {
    let values: Vec<f64> = (0..8).into_par_iter().map(&of).collect();
    values.iter().sum::<f64>() / 8.0
}

fn mean_distance<C: Chain>(
    world: impl Fn(u64) -> World + Sync,
    chain: impl Fn() -> C + Sync,
    visits: u64,
) -> f64 {
    mean(|seed| world(seed).distances(&mut chain(), BATCH, seed, &[visits])[0])
}

/// Mean over visits, and over random functions of the slots, of (estimate of the function's mean − that mean)².
fn squared_error(mut kernel: impl Chain, seed: u64) -> f64 {
    let (world, visits) = (World::new(64, 5.0, seed), 20_000);
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, 4]));
    let mut function = || (0..128).map(|_| random.random_range(-1.0..1.0)).collect();
    let functions: Vec<Vec<f64>> = (0..16).map(|_| function()).collect();
    let mean = |function: &[f64], weights: &[f64]| -> f64 {
        function.iter().zip(weights).map(|(f, w)| f * w).sum()
    };
    let target = world.target();
    let mut sum = 0.0;
    world.each_visit(&mut kernel, (BATCH, seed), visits, |weights| {
        for function in &functions {
            sum += (mean(function, weights) - mean(function, &target)).powi(2);
        }
    });
    sum / (visits * 16) as f64
}

/// The subset kernel written out once more, with rules that can be left out.
struct Kernel {
    /// If the state's own pair is in the batch, only the state represents it.
    own_pair_rule: bool,
    /// The weights are averaged over the random choice and its complement.
    complement: bool,
    state: Option<usize>,
}

impl Kernel {
    fn new(own_pair_rule: bool, complement: bool) -> Self {
        Self {
            own_pair_rule,
            complement,
            state: None,
        }
    }

    fn members(&self, slots: &[usize], choice: &[bool], flip: bool) -> Vec<usize> {
        let pairs = (1..BATCH).map(|pair| slots[2 * pair + usize::from(choice[pair] ^ flip)]);
        let others = pairs.filter(|slot| match self.state {
            Some(state) if self.own_pair_rule => slot / 2 != state / 2,
            _ => true,
        });
        self.state.into_iter().chain(others).collect()
    }
}

impl Chain for Kernel {
    fn visit(&mut self, drawn: &DrawnBatch<'_>, weights: &mut [f64]) {
        let mut random = ChaCha8Rng::seed_from_u64(drawn.seed);
        let choice: Vec<bool> = (0..BATCH).map(|_| random.random()).collect();
        let flips: &[bool] = if self.complement {
            &[false, true]
        } else {
            &[false]
        };
        let mut next = None;
        for flip in flips {
            let members = self.members(&drawn.slots, &choice, *flip);
            let exps: Vec<f64> = members
                .iter()
                .map(|slot| f64::from(drawn.world.scores[*slot]).exp())
                .collect();
            let total: f64 = exps.iter().sum();
            let mut left = random.random::<f64>() * total;
            for (slot, exp) in members.iter().zip(&exps) {
                weights[*slot] += exp / total / flips.len() as f64;
                left -= exp;
                if left < 0.0 && next.is_none() {
                    next = Some(*slot);
                }
            }
        }
        self.state = next.or(self.state);
    }
}

/// Few pairs, so that a state's own pair is often in the batch.
fn small(seed: u64) -> World {
    World::new(12, 5.0, seed)
}

#[test]
fn the_states_own_pair_must_not_enter_its_subset_a_second_time() {
    let kept = mean_distance(small, || Kernel::new(true, true), VISITS);
    let rooms = mean_distance(small, || Sampler::new(SUBSET), VISITS);
    let left_out = mean_distance(small, || Kernel::new(false, true), VISITS);
    println!("own pair: kept {kept}, room {rooms}, left out {left_out}");
    // The noise of 10⁵ visits on 22 images is 0.0015.
    assert!(kept < 0.005 && rooms < 0.005, "{kept} {rooms}");
    assert!(left_out > 0.01, "{left_out}");
}

#[test]
fn the_complementary_choice_lowers_the_variance() {
    let error = |complement| mean(|seed| squared_error(Kernel::new(true, complement), seed));
    let rooms = mean(|seed| squared_error(Sampler::new(SUBSET), seed));
    let (with, without) = (error(true), error(false));
    println!("complement: with {with}, room {rooms}, without {without}");
    // Two runs of the same kernel with other random numbers.
    assert!((rooms / with - 1.0).abs() < 0.05, "{rooms} {with}");
    assert!(without > 1.2 * with, "{without} {with}");
}

#[test]
fn the_bias_of_both_views_does_not_go_as_the_set_grows() {
    for pairs in [64, 192] {
        let distance = |config: &SamplerConfig| {
            mean_distance(
                |seed| World::new(pairs, 5.0, seed),
                || Sampler::new(config.clone()),
                VISITS,
            )
        };
        let (both, one) = (distance(&BOTH), distance(&WALK));
        println!("{pairs} pairs: both views {both}, one view {one}");
        assert!(both > 0.02 && both > 1.5 * one, "{pairs}: {both} {one}");
    }
}

/// The later half of the pairs is drawn with three times the odds.
fn recent(seed: u64) -> World {
    let mut world = World::new(64, 5.0, seed);
    world.odds[32..].fill(3.0);
    world
}

#[test]
fn proposals_that_come_more_often_are_corrected_for() {
    for config in [WALK, SUBSET] {
        let corrected = mean_distance(recent, || Sampler::new(config.clone()), VISITS / 2);
        let uncorrected = || Sampler::uncorrected(config.clone());
        let uncorrected = mean_distance(recent, uncorrected, VISITS / 2);
        println!("recency {config:?}: {corrected} {uncorrected}");
        // The noise of so many visits, as with even odds.
        assert!(corrected < 0.02, "{config:?}: {corrected}");
        assert!(uncorrected > 0.1, "{config:?}: {uncorrected}");
    }
}

/// Visits a chain on 64 pairs whose images were all alike, and then are not; whether it has moved `after` visits later.
fn moves(config: &SamplerConfig, refreshed: bool, seed: u64, after: u64) -> bool {
    let beta = 14.28;
    let mut world = World::new(64, beta, seed);
    let spread = world.scores.clone();
    world.scores.fill(beta);
    let mut sampler = Sampler::new(config.clone());
    world.each_visit(&mut sampler, (BATCH, seed), 20, |_| {});
    let before = sampler.state.expect("it was visited");
    world.scores = spread;
    if refreshed && let Some(state) = &mut sampler.state {
        state.log_score = world.scores[state.negative.packed() as usize];
    }
    world.each_visit(&mut sampler, (BATCH, seed + 1), after, |_| {});
    sampler
        .state
        .is_some_and(|state| state.negative != before.negative)
}

#[test]
fn a_chain_is_not_stuck_at_a_score_of_an_encoder_that_has_changed() {
    for config in [WALK, SUBSET] {
        // A batch of eight holds the state's pair one time in nine, which refreshes its score by itself.
        let moved = |refreshed| {
            (0..100)
                .filter(|seed| moves(&config, refreshed, 10 * seed, 4))
                .count()
        };
        let (fresh, stale) = (moved(true), moved(false));
        println!("drift {config:?}: {fresh} {stale}");
        assert!(fresh > 75, "{config:?}: {fresh} of 100 moved");
        assert!(stale < 50, "{config:?}: {stale} of 100 moved");
    }
}

#[test]
fn scores_of_ten_thousand_are_left_for_better_ones_and_by_nothing_else() {
    let slots: Vec<BatchSlot> = (0..4)
        .map(|slot| BatchSlot {
            key: SlotKey::from_packed(slot),
            log_degree: 0.0,
            log_odds: 0.0,
        })
        .collect();
    for (stored, offered, moves) in [(-1e4, 1e4, true), (1e4, -1e4, false), (1e4, 1.1e4, true)] {
        for config in [WALK, SUBSET] {
            let state = ChainState {
                negative: SlotKey::from_packed(90),
                log_score: stored,
                step: 0,
                visits: 1,
                visits_since_move: 0,
            };
            let estimate = visit(
                &config,
                &Visit {
                    anchor: slots[0].key,
                    slots: &slots,
                    scores: &[0.0, 0.0, offered, offered],
                    masked: &[true, true, false, false],
                    directed: false,
                    carried: Some(Carried {
                        state,
                        log_degree: 0.0,
                        log_odds: 0.0,
                        in_batch: None,
                    }),
                    step: 1,
                    seed: mix(&[3]),
                },
            )
            .expect("there are candidates");
            assert_eq!(
                estimate.next.negative != state.negative,
                moves,
                "{config:?}"
            );
            assert_eq!(estimate.carried, f32::from(u8::from(!moves)));
        }
    }
}

prop_compose! {
    /// Any states of distinct anchors, whatever they say.
    fn tables()(
        rows in prop::collection::btree_map(0..200_u32, (0..200_u32, any::<f32>(), any::<u32>(), any::<u32>()), 0..120),
    ) -> BTreeMap<u32, ChainState> {
        let state = |(negative, log_score, step, visits)| ChainState {
            negative: SlotKey::from_packed(negative),
            log_score,
            step,
            visits,
            visits_since_move: visits / 2,
        };
        rows.into_iter().map(|(anchor, row)| (anchor, state(row))).collect()
    }
}

proptest! {
    #[test]
    fn any_table_comes_back_from_its_columns_and_forgets_what_it_is_told_to(
        rows in tables(), removed in prop::collection::hash_set(0..100_u32, 0..40),
    ) {
        let table = ChainTable::default();
        for (anchor, state) in &rows {
            table.put(SlotKey::from_packed(*anchor), *state);
        }
        let columns = table.to_columns();
        let again = ChainTable::from_columns(&columns).expect("columns are even");
        prop_assert_eq!(&again.to_columns().anchor, &columns.anchor);
        let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&again.to_columns().log_score), bits(&columns.log_score));

        let removed: HashSet<PairKey> = removed.into_iter().map(PairKey).collect();
        again.forget_pairs(&removed);
        let is_removed = |slot: u32| removed.contains(&SlotKey::from_packed(slot).pair());
        let left: Vec<u32> = rows
            .iter()
            .filter(|(anchor, state)| !is_removed(**anchor) && !is_removed(state.negative.packed()))
            .map(|(anchor, _)| *anchor)
            .collect();
        prop_assert_eq!(again.to_columns().anchor, left);
    }
}

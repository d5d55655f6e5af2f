//! Single visits, on cases small enough to compute by hand. `stationarity.rs` tests what many visits add up to.

use std::collections::HashSet;

use kith_mcmc::{
    BatchSlot, Carried, ChainState, Estimate, PairKey, SamplerConfig, SlotKey, Visit, visit,
};
use proptest::prelude::*;

use crate::configs::{BOTH, SUBSET, WALK};

fn slot(packed: u32) -> SlotKey {
    SlotKey::from_packed(packed)
}

/// Pair 0 is the anchor's own; `scores` are those of the other pairs' slots. All degrees are 1.
struct Case {
    slots: Vec<BatchSlot>,
    scores: Vec<f32>,
    masked: Vec<bool>,
    carried: Option<Carried>,
}

impl Case {
    fn new(scores: &[f32]) -> Self {
        let scores: Vec<f32> = [9.0, 9.0].iter().chain(scores).copied().collect();
        let slots = (0..scores.len() as u32)
            .map(|key| BatchSlot {
                key: slot(key),
                log_degree: 0.0,
                log_odds: 0.0,
            })
            .collect();
        let masked = (0..scores.len()).map(|position| position < 2).collect();
        Self {
            slots,
            scores,
            masked,
            carried: None,
        }
    }

    /// With a chain whose state is a slot outside the batch.
    fn carrying(self, log_score: f32) -> Self {
        self.with_state(slot(900), log_score, None)
    }

    /// With a chain whose state is the slot at `position` of the batch, its stored score out of date.
    fn with_state_at(self, position: usize) -> Self {
        let negative = self.slots[position].key;
        self.with_state(negative, 1e4, Some(position))
    }

    fn with_state(mut self, negative: SlotKey, log_score: f32, in_batch: Option<usize>) -> Self {
        let state = ChainState {
            negative,
            log_score,
            step: 3,
            visits: 5,
            visits_since_move: 2,
        };
        self.carried = Some(Carried {
            state,
            log_degree: 0.0,
            log_odds: 0.0,
            in_batch,
        });
        self
    }

    fn visit(&self, config: &SamplerConfig, seed: u64) -> Option<Estimate> {
        let Self {
            slots,
            scores,
            masked,
            carried,
        } = self;
        visit(
            config,
            &Visit {
                anchor: slot(0),
                slots,
                scores,
                masked,
                directed: false,
                carried: *carried,
                step: 7,
                seed,
            },
        )
    }

    fn estimate(&self, config: &SamplerConfig, seed: u64) -> Estimate {
        self.visit(config, seed).expect("there is a candidate")
    }
}

fn assert_close(left: f32, right: f32) {
    // Weights are computed in f64 and rounded once to f32.
    assert!((left - right).abs() < 1e-6, "{left} is not {right}");
}

fn weight(estimate: &Estimate, position: usize) -> f32 {
    estimate
        .weights
        .iter()
        .find(|(at, _)| *at == position)
        .map_or(0.0, |(_, weight)| *weight)
}

#[test]
fn a_first_proposal_is_accepted_outright_and_retained() {
    let case = Case::new(&[-1e4, -1e4]);
    for seed in 0..20 {
        let estimate = case.estimate(&WALK, seed);
        let [(position, 1.0)] = estimate.weights[..] else {
            panic!("{estimate:?}")
        };
        assert!(position == 2 || position == 3);
        assert_eq!(
            (estimate.proposals, estimate.accepted, estimate.carried),
            (1, 1, 0.0)
        );
        let expected = ChainState {
            negative: slot(position as u32),
            log_score: -1e4,
            step: 7,
            visits: 1,
            visits_since_move: 0,
        };
        assert_eq!(estimate.next, expected);
    }
}

#[test]
fn a_walk_that_always_moves_retains_each_state_after_burn_in_once() {
    let case = Case::new(&[0.0; 14]).carrying(-1e4);
    let estimate = case.estimate(&WALK, 1);
    // 7 proposals, ⌊3.5⌋ only move the chain, 4 are retained.
    assert_eq!(
        (estimate.proposals, estimate.accepted, estimate.carried),
        (7, 7, 0.0)
    );
    assert_eq!(estimate.weights.len(), 4);
    estimate
        .weights
        .iter()
        .for_each(|(_, weight)| assert_close(*weight, 0.25));
    let pairs: HashSet<usize> = estimate
        .weights
        .iter()
        .map(|(position, _)| position / 2)
        .collect();
    assert_eq!(pairs.len(), 4, "one image of each pair");
}

#[test]
fn a_walk_that_never_moves_retains_its_state_each_time() {
    let estimate = Case::new(&[0.0; 14]).carrying(1e4).estimate(&WALK, 1);
    assert_eq!((estimate.accepted, estimate.carried), (0, 1.0));
    assert!(estimate.weights.is_empty());
    // It was not scored in this step, so its score and its age stay.
    assert_eq!(
        estimate.next,
        ChainState {
            negative: slot(900),
            log_score: 1e4,
            step: 3,
            visits: 6,
            visits_since_move: 3
        }
    );
}

#[test]
fn both_views_propose_every_image_of_the_batch_once() {
    let estimate = Case::new(&[0.0; 14]).carrying(-1e4).estimate(
        &SamplerConfig {
            burn_in: 0.0,
            ..BOTH
        },
        1,
    );
    assert_eq!(estimate.proposals, 14);
    assert_eq!(
        estimate
            .weights
            .iter()
            .map(|(position, _)| *position)
            .collect::<Vec<_>>(),
        (2..16).collect::<Vec<_>>()
    );
}

#[test]
fn a_walk_of_one_proposal_retains_it_whatever_the_burn_in() {
    for burn_in in [0.0, 0.5, 0.99, 1.0] {
        let estimate = Case::new(&[0.0, 0.0])
            .carrying(-1e4)
            .estimate(&SamplerConfig { burn_in, ..WALK }, 1);
        assert_close(estimate.weights.iter().map(|(_, weight)| weight).sum(), 1.0);
    }
}

/// Share of 40,000 visits in which the walk's single proposal is accepted.
fn acceptance(case: &Case) -> f64 {
    let accepted: u32 = (0..40_000)
        .map(|seed| case.estimate(&WALK, seed).accepted)
        .sum();
    f64::from(accepted) / 40_000.0
}

#[test]
fn a_proposal_is_accepted_with_the_ratio_of_the_exponentiated_scores() {
    let worse = Case::new(&[0.3_f32.ln(), 0.3_f32.ln()]).carrying(0.0);
    // Four standard errors of a share of 0.3 over 40,000 draws.
    assert!((acceptance(&worse) - 0.3).abs() < 0.0092);
    let better = Case::new(&[0.1, 0.1]).carrying(0.0);
    assert_eq!(acceptance(&better), 1.0);
}

#[test]
fn an_image_of_two_slots_is_accepted_half_as_often_and_stored_uncorrected() {
    let mut case = Case::new(&[0.0, 0.0]).carrying(0.0);
    case.slots[2..]
        .iter_mut()
        .for_each(|slot| slot.log_degree = 2_f32.ln());
    // Four standard errors of a share of 1/2 over 40,000 draws.
    assert!((acceptance(&case) - 0.5).abs() < 0.01);
    let moved = (0..20)
        .map(|seed| case.estimate(&WALK, seed))
        .find(|estimate| estimate.accepted == 1);
    assert_eq!(moved.expect("half of them move").next.log_score, 0.0);
}

#[test]
fn a_state_in_the_batch_is_scored_anew_and_weighs_on_its_place() {
    let scores = [0.0, 0.0, -1e4, -1e4];
    for config in [WALK, BOTH, SUBSET] {
        let estimate = Case::new(&scores).with_state_at(2).estimate(&config, 5);
        assert_eq!(estimate.carried, 0.0);
        assert_eq!(
            (estimate.next.log_score, estimate.next.step),
            (0.0, 7),
            "{config:?}"
        );
        assert_eq!(weight(&estimate, 4) + weight(&estimate, 5), 0.0);
    }
    // A proposal of the state itself leaves it where it is.
    let alone = Case::new(&[0.0, -1e4]).with_state_at(2);
    for seed in 0..20 {
        assert_eq!(
            alone.estimate(&WALK, seed).next,
            ChainState {
                negative: slot(2),
                log_score: 0.0,
                step: 7,
                visits: 6,
                visits_since_move: 3
            }
        );
    }
}

#[test]
fn the_subset_kernel_averages_the_softmax_over_a_choice_and_its_complement() {
    // {state: 2, 1} gives 2/3, 1/3; {state: 2, 3} gives 2/5, 3/5.
    let estimate = Case::new(&[0.0, 3_f32.ln()])
        .carrying(2_f32.ln())
        .estimate(&SUBSET, 1);
    assert_close(estimate.carried, 8.0 / 15.0);
    assert_close(weight(&estimate, 2), 1.0 / 6.0);
    assert_close(weight(&estimate, 3), 3.0 / 10.0);
}

#[test]
fn the_subset_kernel_without_a_state_is_the_softmax_of_the_batch() {
    let estimate = Case::new(&[0.0, 0.0, 3_f32.ln(), 3_f32.ln()]).estimate(&SUBSET, 1);
    assert_eq!(estimate.carried, 0.0);
    (2..4).for_each(|position| assert_close(weight(&estimate, position), 0.125));
    (4..6).for_each(|position| assert_close(weight(&estimate, position), 0.375));
}

#[test]
fn the_subset_kernel_counts_an_image_of_three_slots_a_third_in_each() {
    let mut case = Case::new(&[0.0, 0.0]).carrying(0.0);
    case.slots[2].log_degree = 3_f32.ln();
    // {state: 1, 1/3} gives 3/4, 1/4; {state: 1, 1} gives 1/2, 1/2.
    let estimate = case.estimate(&SUBSET, 1);
    assert_close(estimate.carried, 0.625);
    assert_close(weight(&estimate, 2), 0.125);
    assert_close(weight(&estimate, 3), 0.25);
}

#[test]
fn the_states_own_pair_is_represented_by_the_state() {
    let estimate = Case::new(&[0.0, 50.0, 3_f32.ln(), 3_f32.ln()])
        .with_state_at(2)
        .estimate(&SUBSET, 1);
    assert_close(weight(&estimate, 2), 0.25);
    assert_eq!(weight(&estimate, 3), 0.0);
    (4..6).for_each(|position| assert_close(weight(&estimate, position), 0.375));
}

#[test]
fn the_next_state_is_drawn_by_the_weights_of_one_choice() {
    let case = Case::new(&[0.0, 0.0]).carrying(3_f32.ln());
    let moved: u32 = (0..40_000)
        .map(|seed| case.estimate(&SUBSET, seed).accepted)
        .sum();
    // Four standard errors of a share of 1/4 over 40,000 draws.
    assert!((f64::from(moved) / 40_000.0 - 0.25).abs() < 0.0087);
}

#[test]
fn without_a_candidate_only_a_state_has_weight() {
    for config in [WALK, BOTH, SUBSET] {
        assert_eq!(Case::new(&[]).visit(&config, 1), None);
        let estimate = Case::new(&[]).carrying(0.0).estimate(&config, 1);
        assert_eq!(
            (estimate.carried, estimate.proposals, estimate.accepted),
            (1.0, 0, 0)
        );
        assert!(estimate.weights.is_empty());
    }
}

#[test]
fn a_damaged_score_counts_as_no_state() {
    for config in [WALK, SUBSET] {
        for damaged in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let estimate = Case::new(&[0.0; 6]).carrying(damaged).estimate(&config, 1);
            assert_eq!((estimate.carried, estimate.next.visits), (0.0, 1));
        }
    }
}

prop_compose! {
    fn cases()(
        pairs in 1_usize..12,
    )(
        scores in prop::collection::vec(prop_oneof![-20.0..20.0_f32, Just(1e4), Just(-1e4)], 2 * pairs),
        masked in prop::collection::vec(prop::bool::weighted(0.3), 2 * pairs),
        degrees in prop::collection::vec(1_u8..9, 2 * pairs),
        state in prop_oneof![Just(None), (0..2 * pairs).prop_map(Some)],
        outside in prop_oneof![Just(None), prop_oneof![-20.0..20.0_f32, Just(1e4), Just(-1e4)].prop_map(Some)],
    ) -> Case {
        let mut case = Case::new(&scores);
        case.masked[2..].copy_from_slice(&masked);
        case.slots[2..].iter_mut().zip(degrees).for_each(|(slot, degree)| slot.log_degree = f32::from(degree).ln());
        match (state.filter(|position| !masked[*position]), outside) {
            (Some(position), _) => case.with_state_at(position + 2),
            (None, Some(log_score)) => case.carrying(log_score),
            (None, None) => case,
        }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.scores, self.masked, self.carried)
    }
}

proptest! {
    #[test]
    fn weights_sum_to_one_and_never_fall_on_a_masked_slot(case in cases(), seed: u64, burn_in in 0.0..=1.0_f32) {
        for config in [WALK, BOTH, SUBSET] {
            let config = SamplerConfig { burn_in, ..config };
            let Some(estimate) = case.visit(&config, seed) else {
                prop_assert!(case.carried.is_none());
                continue;
            };
            let sum: f32 = estimate.weights.iter().map(|(_, weight)| weight).sum::<f32>() + estimate.carried;
            prop_assert!((sum - 1.0).abs() < 1e-5, "sum {}", sum);
            prop_assert!(estimate.carried >= 0.0 && estimate.weights.iter().all(|(_, weight)| *weight > 0.0));
            prop_assert!(estimate.weights.iter().all(|(position, _)| !case.masked[*position]), "a masked slot weighs");
            prop_assert!(estimate.weights.is_sorted_by(|a, b| a.0 < b.0), "a position occurs twice");
            prop_assert!(estimate.next.negative.pair() != PairKey(0), "the anchor's own pair was proposed");
            prop_assert!(estimate.next.log_score.is_finite());
            prop_assert!(estimate.accepted <= estimate.proposals.max(1));
            let outside = case.carried.is_some_and(|carried| carried.in_batch.is_none());
            prop_assert!(outside || estimate.carried == 0.0);
            prop_assert_eq!(Some(estimate), case.visit(&config, seed), "a visit depends on its seed alone");
        }
    }
}

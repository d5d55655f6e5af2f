//! The paper's estimator: a Metropolis–Hastings walk over the batch, averaged over the states it stands on after burn-in
//! (Yau et al. 2024, algorithm 1), on log scores. Must never know: how scores were made, where states are kept.
//!
//! The proposals of one walk are distinct, which independent draws would not be. The bias this leaves is small and vanishes as the
//! set grows, but only if images that always arrive together do not compete in one walk: hence one image of each pair.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::visit::{Estimate, Member, Proposals, SamplerConfig, Tally, Visit};

/// One walk. `None`: neither a state nor a proposal.
pub(super) fn walk(
    config: &SamplerConfig,
    visit: &Visit<'_>,
    random: &mut ChaCha8Rng,
) -> Option<Estimate> {
    let proposals = proposals(config.proposals, visit, random);
    let burned = burned(config.burn_in, proposals.len());
    let mut tally = Tally::new(visit.slots.len());
    let mut current = visit.standing();
    let mut accepted = 0;
    for (made, &position) in proposals.iter().enumerate() {
        let proposed = visit.candidate(position);
        let state = match current {
            Some(state) if !accepts(&state, &proposed, random) => state,
            _ => {
                accepted += 1;
                proposed
            }
        };
        if made >= burned {
            tally.add(&state, 1.0);
        }
        current = Some(state);
    }
    let last = current?;
    if proposals.is_empty() {
        tally.add(&last, 1.0);
    }
    let (weights, carried) = tally.shares((proposals.len() - burned).max(1) as f64);
    Some(Estimate {
        weights,
        carried,
        next: visit.leave_at(&last),
        proposals: proposals.len() as u32,
        accepted,
    })
}

/// The positions to propose, in random order, each at most once.
fn proposals(kind: Proposals, visit: &Visit<'_>, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut positions = match kind {
        Proposals::OneView => visit.one_of_each_pair(random),
        Proposals::BothViews => (0..visit.slots.len()).collect(),
    };
    positions.retain(|position| !visit.masked[*position]);
    positions.shuffle(random);
    positions
}

/// How many of `made` proposals only move the chain; at least the last one is retained.
fn burned(burn_in: f32, made: usize) -> usize {
    ((burn_in * made as f32) as usize).min(made.saturating_sub(1))
}

/// Metropolis–Hastings in logs: ln u < ln weight of the proposed − ln weight of the current state. Standing still is always accepted.
fn accepts(current: &Member, proposed: &Member, random: &mut ChaCha8Rng) -> bool {
    random.random::<f64>().ln() < f64::from(proposed.log_weight) - f64::from(current.log_weight)
}

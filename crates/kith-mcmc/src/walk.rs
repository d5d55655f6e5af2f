//! The paper's estimator: a Metropolis–Hastings walk over the batch, averaged over the states after burn-in
//! (Yau et al. 2024, algorithm 1), on log scores.
//!
//! The proposals of one walk are distinct; independent draws would not be. The bias this leaves is small and vanishes as the set grows,
//! but only if images that always arrive together do not compete in one walk. Hence one image of each pair.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{Estimate, Proposals, SamplerConfig, Visit, visit::Member};

/// One walk. Returns `None` if there is neither a state nor a proposal.
pub(super) fn walk(
    config: &SamplerConfig,
    visit: &Visit<'_>,
    random: &mut ChaCha8Rng,
) -> Option<Estimate> {
    let proposals = proposals(config.proposals, visit, random);
    let burned = burned(config.burn_in, proposals.len());
    let mut retained = Retained::new(visit.slots.len());
    let mut current = visit.current_state();
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
            retained.push(&state);
        }
        current = Some(state);
    }
    let last = current?;
    if proposals.is_empty() {
        retained.push(&last);
    }
    let (weights, carried) = retained.weights();
    Some(Estimate {
        weights,
        carried,
        next: visit.next_state(&last),
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

/// Metropolis–Hastings in logs: ln u < ln weight of the proposal − ln weight of the current state. A proposal of the current state is
/// always accepted.
fn accepts(current: &Member, proposed: &Member, random: &mut ChaCha8Rng) -> bool {
    random.random::<f64>().ln() < f64::from(proposed.log_weight) - f64::from(current.log_weight)
}

/// How often each state was retained.
struct Retained {
    /// By position in the batch.
    batch: Vec<u32>,
    /// The carried negative outside the batch.
    carried: u32,
    total: u32,
}

impl Retained {
    fn new(slots: usize) -> Self {
        Self {
            batch: vec![0; slots],
            carried: 0,
            total: 0,
        }
    }

    fn push(&mut self, state: &Member) {
        match state.position {
            Some(position) => self.batch[position] += 1,
            None => self.carried += 1,
        }
        self.total += 1;
    }

    /// The share of each position that was retained, ascending, and that of the carried negative.
    fn weights(&self) -> (Vec<(usize, f32)>, f32) {
        let share = |count: u32| (f64::from(count) / f64::from(self.total)) as f32;
        let counts = self.batch.iter().enumerate();
        let weights = counts
            .filter(|(_, count)| **count > 0)
            .map(|(position, count)| (position, share(*count)))
            .collect();
        (weights, share(self.carried))
    }
}

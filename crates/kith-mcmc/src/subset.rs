//! The subset kernel: the softmax over the chain's state and one image of each other pair of the batch gives both the weights and the
//! distribution of the next state (Tjelmeland 2004; Calderhead 2014).
//!
//! Given the subset, each member is equally likely to have been the state that led to it. Drawing the next state by the softmax therefore
//! leaves the target unchanged, and the weighted sum is the conditional mean over that draw (Rao–Blackwell): no burn-in is needed.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{Estimate, Visit, visit::Member};

/// One visit. Returns `None` if there is neither a state nor a candidate.
///
/// The weights are the mean over a random choice of one image of each pair and its complement, both with the state. The next state is
/// drawn from the first choice. Where pairs are directed, the images of the other side are the only choice.
pub(super) fn subset(visit: &Visit<'_>, random: &mut ChaCha8Rng) -> Option<Estimate> {
    let current = visit.current_state();
    let choice = visit.one_of_each_pair(random);
    let complement: Option<Vec<usize>> =
        (!visit.directed).then(|| choice.iter().map(|position| position ^ 1).collect());
    let mut subsets = std::iter::once(choice)
        .chain(complement)
        .filter_map(|positions| Subset::new(visit, current, positions));
    let first = subsets.next()?;
    let second = subsets.next();

    let mut batch = vec![0.0; visit.slots.len()];
    let mut carried = 0.0;
    let share = 1.0 / (1.0 + f64::from(u8::from(second.is_some())));
    for subset in [Some(&first), second.as_ref()].into_iter().flatten() {
        for (position, weight) in subset.positions.iter().zip(&subset.weights) {
            batch[*position] += share * weight;
        }
        match current.and_then(|state| state.position) {
            Some(position) => batch[position] += share * subset.current_weight,
            None => carried += share * subset.current_weight,
        }
    }
    let weights = batch.iter().enumerate();
    let weights = weights.filter(|(_, weight)| **weight > 0.0);

    let next = match first.draw(random) {
        Some(position) => visit.candidate(position),
        None => current?,
    };
    let next = visit.next_state(&next);
    let moved = visit
        .carried
        .is_none_or(|carried| carried.state.negative != next.negative);
    let others = |subset: &Subset| !subset.positions.is_empty();
    let alone =
        current.is_some() && !others(&first) && !second.is_some_and(|second| others(&second));
    Some(Estimate {
        weights: weights
            .map(|(position, weight)| (position, *weight as f32))
            .collect(),
        carried: carried as f32,
        next,
        proposals: u32::from(!alone),
        accepted: u32::from(moved),
    })
}

/// The softmax over the chain's state and the unmasked ones of some positions. If the state's own pair is in the batch, the state
/// represents it.
struct Subset {
    positions: Vec<usize>,
    /// The softmax weight of each of `positions`.
    weights: Vec<f64>,
    /// The softmax weight of the chain's state; 0 without one.
    current_weight: f64,
}

impl Subset {
    /// Returns `None` if the subset is empty.
    fn new(visit: &Visit<'_>, current: Option<Member>, mut positions: Vec<usize>) -> Option<Self> {
        let own_pair = current
            .and_then(|state| state.position)
            .map(|position| position / 2);
        positions.retain(|position| !visit.masked[*position] && Some(*position / 2) != own_pair);
        let log_weight = |position: &usize| visit.log_weight(*position);
        let state = current.map(|state| state.log_weight);
        let logs = state.into_iter().chain(positions.iter().map(log_weight));
        let largest = logs.reduce(f32::max)?;
        // The largest is subtracted first: exp does not overflow and the sum is at least 1. Scores are f32, so f32 is precise enough here.
        let weight = |log: f32| f64::from((log - largest).exp());
        let mut current_weight = state.map_or(0.0, weight);
        let mut weights: Vec<f64> = (positions.iter())
            .map(|position| weight(log_weight(position)))
            .collect();
        let sum = current_weight + weights.iter().sum::<f64>();
        current_weight /= sum;
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Some(Self {
            positions,
            weights,
            current_weight,
        })
    }

    /// Draws a member by the softmax, as a position; `None` is the chain's state.
    fn draw(&self, random: &mut ChaCha8Rng) -> Option<usize> {
        let mut left = random.random::<f64>() - self.current_weight;
        if left < 0.0 {
            return None;
        }
        for (position, weight) in self.positions.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return Some(*position);
            }
        }
        // The weights may sum to a little less than 1: the most likely member takes the remainder.
        let (position, weight) =
            (self.positions.iter().zip(&self.weights)).max_by(|a, b| a.1.total_cmp(b.1))?;
        (*weight > self.current_weight).then_some(*position)
    }
}

//! The subset kernel: the chain's state and one image of each other pair of the batch, weighted by their softmax, from which the next
//! state is drawn too (Tjelmeland 2004; Calderhead 2014). Must never know: how scores were made, where states are kept.
//!
//! Given the subset, each member is equally likely to have been the state that led to it, so drawing the next state by the softmax
//! leaves the target unchanged, and the weighted sum is the mean over what that draw could give (Rao & Blackwell): no burn-in.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::visit::{Estimate, Member, Visit};

/// One visit. `None`: neither a state nor a candidate. Weights are the mean over a random choice of one image a pair and its complement,
/// both with the state; the next state comes from the first.
pub(super) fn subset(visit: &Visit<'_>, random: &mut ChaCha8Rng) -> Option<Estimate> {
    let standing = visit.standing();
    let choice = visit.one_of_each_pair(random);
    let complement = choice.iter().map(|position| position ^ 1).collect();
    let mut subsets = [choice, complement]
        .map(|positions| Subset::new(visit, standing, positions))
        .into_iter()
        .flatten();
    let first = subsets.next()?;
    let second = subsets.next();

    let mut batch = vec![0.0; visit.slots.len()];
    let mut carried = 0.0;
    let share = 1.0 / (1.0 + f64::from(u8::from(second.is_some())));
    for subset in [Some(&first), second.as_ref()].into_iter().flatten() {
        for (position, weight) in subset.positions.iter().zip(&subset.weights) {
            batch[*position] += share * weight;
        }
        match standing.and_then(|state| state.position) {
            Some(position) => batch[position] += share * subset.standing,
            None => carried += share * subset.standing,
        }
    }
    let weights = batch.iter().enumerate();
    let weights = weights.filter(|(_, weight)| **weight > 0.0);

    let next = match first.draw(random) {
        Some(position) => visit.candidate(position),
        None => standing?,
    };
    let next = visit.leave_at(&next);
    let moved = visit
        .carried
        .is_none_or(|carried| carried.state.negative != next.negative);
    let others = |subset: &Subset| !subset.positions.is_empty();
    let alone =
        standing.is_some() && !others(&first) && !second.is_some_and(|second| others(&second));
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

/// The state and the unmasked ones of some positions, with their softmax; the state's own pair, when it is in the batch, is represented by
/// the state.
struct Subset {
    positions: Vec<usize>,
    weights: Vec<f64>,
    /// The state's weight; 0 without one.
    standing: f64,
}

impl Subset {
    /// `None`: nobody is in it.
    fn new(visit: &Visit<'_>, standing: Option<Member>, mut positions: Vec<usize>) -> Option<Self> {
        let own_pair = standing
            .and_then(|state| state.position)
            .map(|position| position / 2);
        positions.retain(|position| !visit.masked[*position] && Some(*position / 2) != own_pair);
        let log_weight =
            |position: &usize| visit.scores[*position] - visit.slots[*position].log_degree;
        let state = standing.map(|state| state.log_weight);
        let logs = state.into_iter().chain(positions.iter().map(log_weight));
        let largest = logs.reduce(f32::max)?;
        // exp(log weight − largest) / their sum: neither overflows nor divides by zero. Scores have 24 bits, and so have these.
        let weight = |log: f32| f64::from((log - largest).exp());
        let mut standing = state.map_or(0.0, weight);
        let mut weights: Vec<f64> = (positions.iter())
            .map(|position| weight(log_weight(position)))
            .collect();
        let sum = standing + weights.iter().sum::<f64>();
        standing /= sum;
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Some(Self {
            positions,
            weights,
            standing,
        })
    }

    /// The member at a uniform point of the cumulated weights, the state first; `None`: the state.
    fn draw(&self, random: &mut ChaCha8Rng) -> Option<usize> {
        let mut left = random.random::<f64>() - self.standing;
        if left < 0.0 {
            return None;
        }
        for (position, weight) in self.positions.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return Some(*position);
            }
        }
        // The weights may sum to a little less than 1: the likeliest takes what is left.
        let (position, weight) =
            (self.positions.iter().zip(&self.weights)).max_by(|a, b| a.1.total_cmp(b.1))?;
        (*weight > self.standing).then_some(*position)
    }
}

//! The subset kernel: the chain's state and one image of each other pair of the batch, weighted by their softmax, from which the next
//! state is drawn too (Tjelmeland 2004; Calderhead 2014). Must never know: how scores were made, where states are kept.
//!
//! Given the subset, each member is equally likely to have been the state that led to it, so drawing the next state by the softmax
//! leaves the target unchanged, and the weighted sum is the mean over what that draw could give (Rao & Blackwell): no burn-in.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::visit::{Estimate, Member, Tally, Visit};

/// One visit. `None`: neither a state nor a candidate. Weights are the mean over a random choice of one image a pair and its complement,
/// both with the state; the next state comes from the first.
pub(super) fn subset(visit: &Visit<'_>, random: &mut ChaCha8Rng) -> Option<Estimate> {
    let choice = visit.one_of_each_pair(random);
    let complement: Vec<usize> = choice.iter().map(|position| position ^ 1).collect();
    let mut subsets = [members(visit, &choice), members(visit, &complement)]
        .into_iter()
        .filter(|subset| !subset.is_empty());
    let first = subsets.next()?;
    let second = subsets.next();

    let mut tally = Tally::new(visit.slots.len());
    let softmax = softmax(&first);
    spread(&mut tally, &first, &softmax);
    if let Some(second) = &second {
        spread(&mut tally, second, &self::softmax(second));
    }
    let (weights, carried) = tally.shares(1.0 + f64::from(u8::from(second.is_some())));

    let next = visit.leave_at(draw(&first, &softmax, random));
    let moved = visit
        .carried
        .is_none_or(|carried| carried.state.negative != next.negative);
    let alone = visit.carried.is_some()
        && first.len() == 1
        && second.is_none_or(|second| second.len() == 1);
    Some(Estimate {
        weights,
        carried,
        next,
        proposals: u32::from(!alone),
        accepted: u32::from(moved),
    })
}

/// The state and the unmasked ones of `choice`; the state's own pair, when it is in the batch, is represented by the state.
fn members(visit: &Visit<'_>, choice: &[usize]) -> Vec<Member> {
    let standing = visit.standing();
    let own_pair = standing
        .and_then(|state| state.position)
        .map(|position| position / 2);
    let others = choice
        .iter()
        .filter(|position| !visit.masked[**position] && Some(**position / 2) != own_pair);
    standing
        .into_iter()
        .chain(others.map(|position| visit.candidate(*position)))
        .collect()
}

/// exp(log weight − largest) / their sum: neither overflows nor divides by zero.
fn softmax(members: &[Member]) -> Vec<f64> {
    let largest = members
        .iter()
        .map(|member| member.log_weight)
        .fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f64> = members
        .iter()
        .map(|member| f64::from(member.log_weight - largest).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

fn spread(tally: &mut Tally, members: &[Member], weights: &[f64]) {
    members
        .iter()
        .zip(weights)
        .for_each(|(member, weight)| tally.add(member, *weight));
}

/// The member at a uniform point of the cumulated weights; `members` is not empty.
fn draw<'a>(members: &'a [Member], weights: &[f64], random: &mut ChaCha8Rng) -> &'a Member {
    let mut left: f64 = random.random();
    for (member, weight) in members.iter().zip(weights) {
        left -= weight;
        if left < 0.0 {
            return member;
        }
    }
    // The weights may sum to a little less than 1: the likeliest takes what is left.
    let likeliest = (0..members.len())
        .max_by(|a, b| weights[*a].total_cmp(&weights[*b]))
        .unwrap_or_default();
    &members[likeliest]
}

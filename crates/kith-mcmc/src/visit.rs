//! What a visit of one anchor's chain reads (scores of a batch, the chain's state) and returns (weights, the next state), and the
//! arithmetic that both estimators share.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{ChainState, Side, SlotKey};

/// One slot of the batch, as a candidate negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSlot {
    /// The slot.
    pub key: SlotKey,
    /// [`PairGraph::log_degree`](crate::PairGraph::log_degree) of its image.
    pub log_degree: f32,
    /// [`PairGraph::log_odds`](crate::PairGraph::log_odds) of the slot.
    pub log_odds: f32,
}

/// The inputs of one visit.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The anchor.
    pub anchor: SlotKey,
    /// `[slots]`: the whole batch, two slots for each pair, pairs adjacent (anchor, then positive).
    pub slots: &'a [BatchSlot],
    /// `[slots]`: β φ(x)·ψ(z) of the anchor against each of `slots`.
    pub scores: &'a [f32],
    /// `[slots]`: which of `slots` may not be proposed (the anchor's own pair and its known positives).
    pub masked: &'a [bool],
    /// Whether all candidates are on the other side of their pairs.
    pub directed: bool,
    /// The chain's state. `None` on a first visit, or if the state's image was deleted or is a known positive by now.
    pub carried: Option<Carried>,
    /// The current step; it is stored with a new state.
    pub step: u32,
    /// Seed of this visit's randomness, derived from (seed of the run, step, anchor).
    pub seed: u64,
}

/// The chain state that a visit starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// The table's entry, with `log_score` refreshed if the caller has a fresh score.
    pub state: ChainState,
    /// [`PairGraph::log_degree`](crate::PairGraph::log_degree) of the state's image.
    pub log_degree: f32,
    /// [`PairGraph::log_odds`](crate::PairGraph::log_odds) of the state.
    pub log_odds: f32,
    /// Position in [`Visit::slots`] if the state's own slot is part of the batch. Its score there replaces the stored one.
    pub in_batch: Option<usize>,
}

/// The outcome of a visit: weights of the negative term, which sum to 1, and the chain's next state.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// (position in [`Visit::slots`], weight > 0), ascending, each position at most once.
    pub weights: Vec<(usize, f32)>,
    /// Weight of the carried negative if it is not in the batch, else 0.
    pub carried: f32,
    /// The state to write back.
    pub next: ChainState,
    /// Walk: number of proposals. Subset kernel: 1, or 0 if the chain's state was the only candidate.
    pub proposals: u32,
    /// Walk: number of accepted proposals. Subset kernel: 1 if the state changed.
    pub accepted: u32,
}

/// A candidate for the chain's state in this visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Position in the batch; `None` for the carried negative outside the batch.
    pub(super) position: Option<usize>,
    /// ln of its unnormalised probability: log score − ln degree, and − ln odds where these count.
    pub(super) log_weight: f32,
    negative: SlotKey,
    log_score: f32,
    step: u32,
}

impl Visit<'_> {
    /// ln of the unnormalised probability of the candidate at `position`.
    pub(super) fn log_weight(&self, position: usize) -> f32 {
        let BatchSlot {
            log_degree,
            log_odds,
            ..
        } = self.slots[position];
        self.scores[position] - log_degree - if self.odds_count() { log_odds } else { 0.0 }
    }

    /// Whether a candidate's weight is divided by the odds that its pair is drawn.
    ///
    /// A set of candidates of which one, the chain's state, was not drawn comes up in proportion to the odds of the others, so it favours states
    /// of low odds. If the state's pair was drawn too, the set comes up equally often from each of its members.
    fn odds_count(&self) -> bool {
        self.carried
            .is_none_or(|carried| carried.in_batch.is_none())
    }

    /// The candidate at `position` of the batch.
    pub(super) fn candidate(&self, position: usize) -> Member {
        Member {
            position: Some(position),
            log_weight: self.log_weight(position),
            negative: self.slots[position].key,
            log_score: self.scores[position],
            step: self.step,
        }
    }

    /// The chain's state at the start of the visit.
    pub(super) fn current_state(&self) -> Option<Member> {
        let Carried {
            state,
            log_degree,
            log_odds,
            in_batch,
        } = self.carried?;
        Some(match in_batch {
            Some(position) => self.candidate(position),
            None => Member {
                position: None,
                log_weight: state.log_score - log_degree - log_odds,
                negative: state.negative,
                log_score: state.log_score,
                step: state.step,
            },
        })
    }

    /// Position of one image of each pair of the batch, masked or not. Where pairs are directed it is that of the other side, else a fair coin
    /// picks it. Masks apply after the coin: an image whose partner is masked must not be proposed twice as often as the others.
    pub(super) fn one_of_each_pair(&self, random: &mut ChaCha8Rng) -> Vec<usize> {
        let other = self.anchor.side() == Side::Anchor;
        let mut second = || {
            if self.directed {
                other
            } else {
                random.random()
            }
        };
        (0..self.slots.len() / 2)
            .map(|pair| 2 * pair + usize::from(second()))
            .collect()
    }

    /// The table's new entry if the visit ends in `member`.
    pub(super) fn next_state(&self, member: &Member) -> ChainState {
        let before = self.carried.map(|carried| carried.state);
        let stayed = before.filter(|state| state.negative == member.negative);
        ChainState {
            negative: member.negative,
            log_score: member.log_score,
            step: member.step,
            visits: before.map_or(0, |state| state.visits).saturating_add(1),
            visits_since_move: stayed.map_or(0, |state| state.visits_since_move.saturating_add(1)),
        }
    }
}

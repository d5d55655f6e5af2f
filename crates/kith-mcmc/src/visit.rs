//! One visit of one anchor's chain: what goes in (a batch's scores, the chain's state), what comes out (weights, the next state), and
//! what both estimators share. Must never know: how scores were made, where states are kept.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{ChainState, subset, walk};
use crate::SlotKey;

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// The paper: a Metropolis–Hastings walk over the batch, averaged over retained states.
    Walk,
    /// The chain state and the batch weighted by their softmax (Tjelmeland 2004, Calderhead 2014).
    Subset,
}

/// Which images of a batch one walk proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposals {
    /// One of each other pair's two images, at random: the bias vanishes as the set grows.
    OneView,
    /// Both images, as the authors' code does: biased (kept for studies).
    BothViews,
}

/// The sampler's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// How negatives are drawn.
    pub estimator: Estimator,
    /// Share of a walk that only moves the chain. Not used by the subset kernel.
    pub burn_in: f32,
    /// Which images a walk proposes. Not used by the subset kernel.
    pub proposals: Proposals,
}

/// One candidate of the batch: log score against the visited anchor is given separately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSlot {
    /// The slot.
    pub key: SlotKey,
    /// [`super::PairGraph::log_degree`] of its image.
    pub log_degree: f32,
}

/// One visit of one anchor.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The anchor.
    pub anchor: SlotKey,
    /// The whole batch, two slots for each pair, pairs adjacent (`[anchor, positive]`).
    pub slots: &'a [BatchSlot],
    /// β φ(x)·ψ(z) against each of `slots`.
    pub scores: &'a [f32],
    /// Which of `slots` may not be proposed (own pair and known positives).
    pub masked: &'a [bool],
    /// Where the chain stands; its `log_score` refreshed if so configured. `None`: first visit, or the state is gone or excluded.
    pub carried: Option<Carried>,
    /// The step, stored with the new state.
    pub step: u32,
    /// Randomness of this visit, from (seed, step, anchor).
    pub seed: u64,
}

/// The chain state that a visit starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// The state as the table holds it, `log_score` refreshed where the caller did so.
    pub state: ChainState,
    /// [`super::PairGraph::log_degree`] of its image.
    pub log_degree: f32,
    /// Position in `slots` when the state's own slot is part of the batch: its score there is used, being of today.
    pub in_batch: Option<usize>,
}

/// What a visit gives: weights of the negative term (they sum to 1), and the chain's next state.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// (position in `slots`, weight > 0), ascending; positions at most once.
    pub weights: Vec<(usize, f32)>,
    /// Weight of the carried negative when it is not in the batch.
    pub carried: f32,
    /// The state to write back.
    pub next: ChainState,
    /// Proposals made (walk), or 1 (subset); 0 if the batch had no candidate.
    pub proposals: u32,
    /// Proposals accepted (walk), or 1 if the state moved (subset).
    pub accepted: u32,
}

/// One visit by the configured estimator. `None`: no candidate at all, the anchor has no negative term.
/// A carried score that is not finite (a damaged table) counts as no state.
pub fn visit(config: &SamplerConfig, visit: &Visit<'_>) -> Option<Estimate> {
    debug_assert!(
        visit.slots.len() == visit.scores.len() && visit.slots.len() == visit.masked.len()
    );
    let carried = visit
        .carried
        .filter(|carried| carried.in_batch.is_some() || carried.state.log_score.is_finite());
    let visit = Visit { carried, ..*visit };
    let mut random = ChaCha8Rng::seed_from_u64(visit.seed);
    match config.estimator {
        Estimator::Walk => walk::walk(config, &visit, &mut random),
        Estimator::Subset => subset::subset(&visit, &mut random),
    }
}

/// A state the chain may stand on in this visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Position in the batch; `None` for the carried negative outside of it.
    pub(super) position: Option<usize>,
    /// ln of its unnormalised probability: log score − ln degree.
    pub(super) log_weight: f32,
    negative: SlotKey,
    log_score: f32,
    step: u32,
}

impl Visit<'_> {
    /// The candidate at `position` of the batch.
    pub(super) fn candidate(&self, position: usize) -> Member {
        let BatchSlot { key, log_degree } = self.slots[position];
        let log_score = self.scores[position];
        Member {
            position: Some(position),
            log_weight: log_score - log_degree,
            negative: key,
            log_score,
            step: self.step,
        }
    }

    /// Where the chain stands.
    pub(super) fn standing(&self) -> Option<Member> {
        let Carried {
            state,
            log_degree,
            in_batch,
        } = self.carried?;
        Some(match in_batch {
            Some(position) => self.candidate(position),
            None => Member {
                position: None,
                log_weight: state.log_score - log_degree,
                negative: state.negative,
                log_score: state.log_score,
                step: state.step,
            },
        })
    }

    /// Position of one image of each pair of the batch, picked by a fair coin, masked or not. Masks come after the coin: an image whose
    /// partner is masked must not be proposed twice as often as the others.
    pub(super) fn one_of_each_pair(&self, random: &mut ChaCha8Rng) -> Vec<usize> {
        (0..self.slots.len() / 2)
            .map(|pair| 2 * pair + random.random::<bool>() as usize)
            .collect()
    }

    /// The table's new entry when the chain ends this visit on `member`.
    pub(super) fn leave_at(&self, member: &Member) -> ChainState {
        let before = self.carried.map(|carried| carried.state);
        let stayed = before.filter(|state| state.negative == member.negative);
        ChainState {
            negative: member.negative,
            log_score: member.log_score,
            step: member.step,
            visits: before.map_or(0, |state| state.visits).saturating_add(1),
            still: stayed.map_or(0, |state| state.still.saturating_add(1)),
        }
    }
}

/// Weights gathered in a visit: of each position of the batch, and of the carried negative outside of it.
pub(super) struct Tally {
    batch: Vec<f64>,
    carried: f64,
}

impl Tally {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            batch: vec![0.0; slots],
            carried: 0.0,
        }
    }

    pub(super) fn add(&mut self, member: &Member, weight: f64) {
        match member.position {
            Some(position) => self.batch[position] += weight,
            None => self.carried += weight,
        }
    }

    /// The positive weights divided by `total`, and the carried one.
    pub(super) fn shares(&self, total: f64) -> (Vec<(usize, f32)>, f32) {
        let share = |weight: &f64| (weight / total) as f32;
        let weights = self
            .batch
            .iter()
            .map(share)
            .enumerate()
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        (weights, share(&self.carried))
    }
}

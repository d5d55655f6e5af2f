//! EMC²'s sampler: who may be whose negative, the chain table, the walk and the subset kernel.
//! Must never know: tensors, images, databases. No IO; the table gives and takes columns, a higher room writes them.
//! Only room that uses `dashmap`.

use std::collections::{HashMap, HashSet};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use crate::types::{GroupKey, ImageKey, PairKey, SlotKey};

/// One trained pair, as the sampler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEntry {
    /// The images of the anchor and the positive side; equal when one image makes its own pair of views.
    pub images: [ImageKey; 2],
    /// Images of one group are never each other's negatives.
    pub group: Option<GroupKey>,
}

/// The trained pairs, and who is a known positive of whom.
#[derive(Debug, Default)]
pub struct PairGraph {
    pairs: HashMap<PairKey, PairEntry>,
    by_image: HashMap<ImageKey, Vec<PairKey>>,
}

impl PairGraph {
    /// Adds a pair; adding one that is there changes nothing.
    pub fn insert(&mut self, pair: PairKey, entry: PairEntry) {
        todo!("{pair:?} {entry:?}")
    }
    /// Removes a pair; its slots are no candidates any more.
    pub fn remove(&mut self, pair: PairKey) -> Option<PairEntry> {
        todo!("{pair:?}")
    }
    /// The pair's images and group, if it is (still) trained on.
    pub fn get(&self, pair: PairKey) -> Option<PairEntry> {
        self.pairs.get(&pair).copied()
    }
    /// The image that holds a slot; `None` once its pair is gone.
    pub fn image(&self, slot: SlotKey) -> Option<ImageKey> {
        todo!("{slot:?}")
    }
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }
    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
    /// Number of distinct images.
    pub fn images(&self) -> usize {
        self.by_image.len()
    }
    /// ln(number of slots that the image holds): subtracted from a candidate's log score so that the target counts each image once.
    pub fn log_degree(&self, image: ImageKey) -> f32 {
        todo!("{image:?}")
    }
    /// What is known to be positive for `anchor`; see [`Positives::excludes`].
    pub fn positives(&self, anchor: SlotKey) -> Positives<'_> {
        todo!("{anchor:?}")
    }
}

/// The known positives of one anchor: its own image, its partners in any pair, all images of a pair that shares an image with the
/// anchor's pair, and all images that share a group with it.
pub struct Positives<'graph> {
    graph: &'graph PairGraph,
    images: HashSet<ImageKey>,
    groups: HashSet<GroupKey>,
}

impl Positives<'_> {
    /// Whether `candidate` must not be a negative of the anchor (also true of a slot whose pair is gone).
    pub fn excludes(&self, candidate: SlotKey) -> bool {
        let _ = (&self.graph, &self.images, &self.groups);
        todo!("{candidate:?}")
    }
}

/// State of one anchor's chain: 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainState {
    /// The slot of the last accepted negative.
    pub negative: SlotKey,
    /// β φ(x)·ψ(z) when it was last scored; without the degree correction.
    pub log_score: f32,
    /// Step at which it was last scored.
    pub step: u32,
    /// Visits so far.
    pub visits: u32,
    /// Visits since the chain last moved.
    pub still: u32,
}

/// One [`ChainState`] for each anchor that was visited; walked in parallel.
#[derive(Debug, Default)]
pub struct ChainTable {
    states: DashMap<SlotKey, ChainState>,
}

/// The table as columns, sorted by anchor: the form in which it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainColumns {
    /// Packed [`SlotKey`] of each anchor, ascending.
    pub anchor: Vec<u32>,
    /// Packed [`SlotKey`] of each state.
    pub negative: Vec<u32>,
    /// See [`ChainState::log_score`].
    pub log_score: Vec<f32>,
    /// See [`ChainState::step`].
    pub step: Vec<u32>,
    /// See [`ChainState::visits`].
    pub visits: Vec<u32>,
    /// See [`ChainState::still`].
    pub still: Vec<u32>,
}

impl ChainTable {
    /// The chain of `anchor`, if it was ever visited.
    pub fn get(&self, anchor: SlotKey) -> Option<ChainState> {
        self.states.get(&anchor).map(|state| *state)
    }
    /// Writes a chain's state.
    pub fn put(&self, anchor: SlotKey, state: ChainState) {
        self.states.insert(anchor, state);
    }
    /// Forgets both chains of a pair, and every state that stands on one of its slots.
    pub fn forget_pairs(&self, gone: &HashSet<PairKey>) {
        todo!("{gone:?}")
    }
    /// Number of chains.
    pub fn len(&self) -> usize {
        self.states.len()
    }
    /// Whether no anchor was visited yet.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
    /// A copy of the table, sorted by anchor.
    pub fn to_columns(&self) -> ChainColumns {
        todo!()
    }
    /// A table from columns; columns of unequal length are an error.
    pub fn from_columns(columns: &ChainColumns) -> Result<Self, UnevenColumns> {
        todo!("{columns:?}")
    }
}

/// The columns of a chain table differ in length.
#[derive(Debug, thiserror::Error)]
#[error("the columns of the chain table differ in length")]
pub struct UnevenColumns;

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
    /// Which images a walk proposes.
    pub proposals: Proposals,
}

/// One candidate of the batch: log score against the visited anchor is given separately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSlot {
    /// The slot.
    pub key: SlotKey,
    /// [`PairGraph::log_degree`] of its image.
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
    /// Where the chain stands; its `log_score` refreshed if so configured. `None`: first visit, or the state is gone.
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
    /// [`PairGraph::log_degree`] of its image.
    pub log_degree: f32,
    /// Position in `slots` when the state's own slot is part of the batch.
    pub in_batch: Option<usize>,
}

/// What a visit gives: weights of the negative term (they sum to 1), and the chain's next state.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// (position in `slots`, weight); positions at most once.
    pub weights: Vec<(usize, f32)>,
    /// Weight of the carried negative when it is not in the batch.
    pub carried: f32,
    /// The state to write back.
    pub next: ChainState,
    /// Proposals made.
    pub proposals: u32,
    /// Proposals accepted (walk), or 1 if the state moved (subset).
    pub accepted: u32,
}

/// One visit by the configured estimator. `None`: no candidate at all, the anchor has no negative term.
pub fn visit(config: &SamplerConfig, visit: &Visit<'_>) -> Option<Estimate> {
    todo!("{config:?} {visit:?}")
}

//! The chain table: one small state for each anchor ever visited, read and written from many threads, and its form as columns.
//! Must never know: scores' meaning, files.

use std::collections::HashSet;

use dashmap::DashMap;

use crate::{PairKey, SlotKey};

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

/// What the states of a table say. A table of one kind must not be read as another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateKind {
    /// Where a Markov chain stands.
    #[default]
    Chains,
    /// The anchor's moving average: its logarithm is in [`ChainState::log_score`], and [`ChainState::negative`] is the anchor's own slot.
    Averages,
}

/// One [`ChainState`] for each anchor that was visited; walked in parallel.
#[derive(Debug, Default)]
pub struct ChainTable {
    kind: StateKind,
    states: DashMap<SlotKey, ChainState>,
}

/// The table as columns, sorted by anchor: the form in which it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainColumns {
    /// What the states say.
    pub kind: StateKind,
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
    /// An empty table.
    pub fn of(kind: StateKind) -> Self {
        Self {
            kind,
            states: DashMap::new(),
        }
    }

    /// What its states say.
    pub fn kind(&self) -> StateKind {
        self.kind
    }

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
        self.states.retain(|anchor, state| {
            !gone.contains(&anchor.pair()) && !gone.contains(&state.negative.pair())
        });
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
        let mut states: Vec<_> = self
            .states
            .iter()
            .map(|entry| (entry.key().packed(), *entry.value()))
            .collect();
        states.sort_unstable_by_key(|(anchor, _)| *anchor);
        ChainColumns {
            kind: self.kind,
            anchor: states.iter().map(|(anchor, _)| *anchor).collect(),
            negative: states
                .iter()
                .map(|(_, state)| state.negative.packed())
                .collect(),
            log_score: states.iter().map(|(_, state)| state.log_score).collect(),
            step: states.iter().map(|(_, state)| state.step).collect(),
            visits: states.iter().map(|(_, state)| state.visits).collect(),
            still: states.iter().map(|(_, state)| state.still).collect(),
        }
    }

    /// A table from columns; columns of unequal length are an error.
    /// Values are not judged: a state that makes no sense any more is a chain that starts anew.
    pub fn from_columns(columns: &ChainColumns) -> Result<Self, UnevenColumns> {
        let ChainColumns {
            kind,
            anchor,
            negative,
            log_score,
            step,
            visits,
            still,
        } = columns;
        let lengths = [
            negative.len(),
            log_score.len(),
            step.len(),
            visits.len(),
            still.len(),
        ];
        if lengths.iter().any(|length| *length != anchor.len()) {
            return Err(UnevenColumns);
        }
        let state = |row: usize| ChainState {
            negative: SlotKey::from_packed(negative[row]),
            log_score: log_score[row],
            step: step[row],
            visits: visits[row],
            still: still[row],
        };
        let states = (0..anchor.len())
            .map(|row| (SlotKey::from_packed(anchor[row]), state(row)))
            .collect();
        Ok(Self {
            kind: *kind,
            states,
        })
    }
}

/// The columns of a chain table differ in length.
#[derive(Debug, thiserror::Error)]
#[error("the columns of the chain table differ in length")]
pub struct UnevenColumns;

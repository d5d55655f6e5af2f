//! The chain table: one small state for each anchor that was visited, read and written from many threads, and its form as columns.

use std::collections::HashSet;

use dashmap::DashMap;

use crate::{PairKey, SlotKey};

/// State of one anchor's chain, in 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainState {
    /// The current negative: the slot that was accepted last.
    pub negative: SlotKey,
    /// β φ(x)·ψ(z) of the negative when it was last scored, without the degree correction.
    pub log_score: f32,
    /// Step at which the negative was last scored.
    pub step: u32,
    /// Visits so far.
    pub visits: u32,
    /// Visits since the chain last moved.
    pub visits_since_move: u32,
}

/// What the states of a table mean. A table of one kind must not be read as another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateKind {
    /// The state of a Markov chain.
    #[default]
    Chains,
    /// An estimate of the mean of exp(score) over the anchor's negatives, its normaliser, by a moving average (SogCLR) or a dual variable (SCENT):
    /// [`ChainState::log_score`] holds its logarithm, and [`ChainState::negative`] the anchor's own slot.
    Averages,
}

/// One [`ChainState`] for each anchor that was visited. All methods but the constructors take `&self` and may be called from many threads.
#[derive(Debug, Default)]
pub struct ChainTable {
    kind: StateKind,
    states: DashMap<SlotKey, ChainState>,
}

/// The table as columns of equal length, sorted by anchor: the form in which it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainColumns {
    /// What the states mean.
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
    /// See [`ChainState::visits_since_move`]; the column `still` of a file.
    pub visits_since_move: Vec<u32>,
}

impl ChainTable {
    /// An empty table.
    pub fn new(kind: StateKind) -> Self {
        Self {
            kind,
            states: DashMap::new(),
        }
    }

    /// What its states mean.
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

    /// Removes the chains of the `removed` pairs, and every chain whose state is one of their slots.
    pub fn forget_pairs(&self, removed: &HashSet<PairKey>) {
        self.states.retain(|anchor, state| {
            !removed.contains(&anchor.pair()) && !removed.contains(&state.negative.pair())
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
            visits_since_move: states
                .iter()
                .map(|(_, state)| state.visits_since_move)
                .collect(),
        }
    }

    /// A table from columns. Columns of unequal length are an error.
    ///
    /// Values are not checked: a chain whose state names no candidate any more restarts at its next visit.
    pub fn from_columns(columns: &ChainColumns) -> Result<Self, UnevenColumns> {
        let ChainColumns {
            kind,
            anchor,
            negative,
            log_score,
            step,
            visits,
            visits_since_move,
        } = columns;
        let lengths = [
            negative.len(),
            log_score.len(),
            step.len(),
            visits.len(),
            visits_since_move.len(),
        ];
        if lengths.iter().any(|length| *length != anchor.len()) {
            return Err(UnevenColumns);
        }
        let state = |row: usize| ChainState {
            negative: SlotKey::from_packed(negative[row]),
            log_score: log_score[row],
            step: step[row],
            visits: visits[row],
            visits_since_move: visits_since_move[row],
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

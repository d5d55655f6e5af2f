//! The spaces that are kept, and what callers may know of them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use serde::Serialize;

use super::{
    plan::{Plan, plan},
    space::Space,
};
use crate::types::CheckpointId;

/// How much of what is stored a space covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Share of the stored images that it has vectors of, 0 to 1.
    pub share: f64,
}

/// What a space is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It answers searches that name no checkpoint.
    Answering,
    /// It answers them once all stored images are embedded.
    Next,
    /// It answers searches that name it.
    Kept,
}

/// A space as callers see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpaceState {
    /// The checkpoint, and how much its space covers.
    pub coverage: Coverage,
    /// What it is kept for.
    pub role: Role,
    /// Its vectors.
    pub images: usize,
    /// Vectors that are found by a graph; the others are scanned.
    pub in_graph: usize,
    /// How far a graph over its vectors is built, 0 to 1; `None`: none is being built.
    pub graph_progress: Option<f64>,
    /// Bytes in memory.
    pub bytes: usize,
}

/// All spaces.
#[derive(Default)]
pub(super) struct Spaces {
    state: Mutex<State>,
    uses: AtomicU64,
}

#[derive(Default)]
struct State {
    spaces: Vec<Arc<Space>>,
    answering: Option<CheckpointId>,
    live: Option<CheckpointId>,
}

impl Spaces {
    pub(super) fn get(&self, id: CheckpointId) -> Option<Arc<Space>> {
        let state = self.lock();
        state
            .spaces
            .iter()
            .find(|space| space.checkpoint() == id)
            .cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Space>> {
        self.lock().spaces.clone()
    }

    /// The space that answers where a search names no checkpoint.
    pub(super) fn answering(&self) -> Option<Arc<Space>> {
        let answering = self.lock().answering?;
        self.get(answering)
    }

    /// The space that takes over from the answering one.
    pub(super) fn next(&self) -> Option<Arc<Space>> {
        let (answering, live) = {
            let state = self.lock();
            (state.answering, state.live)
        };
        live.filter(|live| answering != Some(*live))
            .and_then(|live| self.get(live))
    }

    /// Adds a space, unless another caller added that checkpoint's before.
    pub(super) fn add(&self, space: Space) -> Arc<Space> {
        let mut state = self.lock();
        let known = state
            .spaces
            .iter()
            .find(|known| known.checkpoint() == space.checkpoint());
        if let Some(known) = known {
            return known.clone();
        }
        let space = Arc::new(space);
        space.note_use(self.next_use(), false);
        state.spaces.push(space.clone());
        space
    }

    pub(super) fn remove(&self, id: CheckpointId) {
        let mut state = self.lock();
        state.spaces.retain(|space| space.checkpoint() != id);
    }

    /// Plans what is to be done, and lets the planned checkpoint answer from now on.
    pub(super) fn plan(&self, live: Option<CheckpointId>, kept: usize) -> Plan {
        let mut state = self.lock();
        let facts: Vec<_> = state.spaces.iter().map(|space| space.facts()).collect();
        let plan = plan(&facts, live, state.answering, kept);
        (state.answering, state.live) = (plan.answering, live);
        plan
    }

    /// A number that grows with each use.
    pub(super) fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// Its coverage of `stored` images.
    pub(super) fn coverage(&self, stored: u64) -> Coverage {
        let images = self.index().len();
        Coverage {
            checkpoint: self.checkpoint(),
            // An image may have come or gone since they were counted.
            share: (images as f64 / (stored as f64).max(1.0)).min(1.0),
        }
    }
}

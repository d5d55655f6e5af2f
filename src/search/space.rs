//! One checkpoint's vectors of the stored images, and how far they are made.

use std::sync::{
    RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
};

use super::plan::Facts;
use crate::{checkpoint::InUse, db::VectorSpace, types::CheckpointId};
use kith_mcmc::ImageKey;
use kith_search::Index;

/// The vectors of one checkpoint.
pub(super) struct Space {
    pub(super) stored: VectorSpace,
    index: RwLock<Index>,
    /// Encoders of the checkpoint: 1 for both sides of pairs, or 2.
    towers: usize,
    /// Images up to this key have been gone through in the present round.
    cursor: AtomicU32,
    complete: AtomicBool,
    wanted: AtomicBool,
    was_live: bool,
    used: AtomicU64,
    /// Images of the present round that cannot be embedded.
    skipped: AtomicU64,
    /// Keeps retention from the checkpoint that callers search.
    _in_use: InUse,
}

impl Space {
    /// `towers`: encoders of the checkpoint.
    pub(super) fn new(
        stored: VectorSpace,
        (index, towers): (Index, usize),
        was_live: bool,
        in_use: InUse,
    ) -> Self {
        Self {
            stored,
            index: RwLock::new(index),
            towers,
            cursor: AtomicU32::new(0),
            complete: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            was_live,
            used: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            _in_use: in_use,
        }
    }

    pub(super) fn checkpoint(&self) -> CheckpointId {
        self.stored.checkpoint
    }

    /// Whether an image has the same vector as a query and as what is found.
    pub(super) fn queries_are_alike(&self) -> bool {
        self.towers == 1
    }

    /// Not to be held on a thread of a pool: its other work may wait for the same lock.
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        // Every change of the index is whole, or panics before it begins.
        self.index
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// As [`Space::index`].
    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index
            .write()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            checkpoint: self.checkpoint(),
            complete: self.is_complete(),
            wanted: self.wanted.load(SeqCst),
            was_live: self.was_live,
            used: self.used.load(SeqCst),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(SeqCst)
    }

    /// Notes that a caller searches it; `at` grows with each use.
    pub(super) fn note_use(&self, at: u64, wanted: bool) {
        self.used.store(at, SeqCst);
        if wanted {
            self.wanted.store(true, SeqCst);
        }
    }

    /// The image after which the present round goes on.
    pub(super) fn cursor(&self) -> ImageKey {
        ImageKey(self.cursor.load(SeqCst))
    }

    pub(super) fn advance(&self, to: ImageKey, skipped: u64) {
        self.cursor.store(to.0, SeqCst);
        self.skipped.fetch_add(skipped, SeqCst);
    }

    /// The round reached the newest image.
    pub(super) fn finish_round(&self) {
        self.complete.store(true, SeqCst);
        self.wanted.store(false, SeqCst);
    }

    /// Whether images were left out that another round may find repaired.
    pub(super) fn left_some_out(&self) -> bool {
        self.skipped.load(SeqCst) > 0
    }

    /// Goes through all images again.
    pub(super) fn begin_round(&self) {
        self.skipped.store(0, SeqCst);
        self.cursor.store(0, SeqCst);
    }
}

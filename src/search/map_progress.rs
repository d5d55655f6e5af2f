//! Which map is being made, and how far it is.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use crate::types::CheckpointId;

/// The map that is being made; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Maps {
    making: Arc<Mutex<Option<Making>>>,
}

#[derive(Clone)]
struct Making {
    checkpoint: CheckpointId,
    /// An `f32` by its bits.
    progress: Arc<AtomicU32>,
}

impl Maps {
    /// How far the map of a checkpoint is made.
    pub(super) fn progress(&self, checkpoint: CheckpointId) -> Option<f64> {
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let making = making.as_ref().filter(|one| one.checkpoint == checkpoint)?;
        Some(f32::from_bits(making.progress.load(SeqCst)).into())
    }

    /// Begins to make a map; `None`: another is being made.
    pub(super) fn begin(&self, checkpoint: CheckpointId) -> Option<Arc<AtomicU32>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if making.is_some() {
            return None;
        }
        let progress = Arc::<AtomicU32>::default();
        *making = Some(Making {
            checkpoint,
            progress: progress.clone(),
        });
        Some(progress)
    }
}

/// Says that no map is being made, after a panic too.
pub(super) struct Done(pub(super) Maps);

impl Drop for Done {
    fn drop(&mut self) {
        *self.0.making.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

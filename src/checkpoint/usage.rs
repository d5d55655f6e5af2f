//! Counts the users of each checkpoint: retention keeps a checkpoint until its last user is done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::types::CheckpointId;

/// Counts users by checkpoint; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    users: Arc<Mutex<HashMap<CheckpointId, usize>>>,
}

/// Somebody uses a checkpoint, until this is dropped: a download, a pinned encoder.
#[derive(Debug)]
pub struct InUse {
    usage: Usage,
    id: CheckpointId,
}

impl Usage {
    pub(super) fn begin(&self, id: CheckpointId) -> InUse {
        *self.lock().entry(id).or_default() += 1;
        InUse {
            usage: self.clone(),
            id,
        }
    }

    pub(super) fn is_used(&self, id: CheckpointId) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CheckpointId, usize>> {
        // Each change is one step, so a panic elsewhere leaves the counts whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut users = self.usage.lock();
        if let Some(count) = users.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_in_use_until_its_last_user_is_done() {
        let (usage, id) = (Usage::default(), CheckpointId::now());
        let (first, second) = (usage.begin(id), usage.begin(id));
        drop(first);
        assert!(usage.is_used(id));
        drop(second);
        assert!(!usage.is_used(id));
    }
}

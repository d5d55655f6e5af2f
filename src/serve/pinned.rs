//! A bounded cache of pinned checkpoints (`kith@ID`): each is loaded once, when it is first asked for, and the least recently used one is
//! dropped first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::types::CheckpointId;

/// A cache of `T` by checkpoint. `T` is the loaded encoder; tests use something smaller.
pub(super) struct Pinned<T> {
    capacity: usize,
    /// Most recently used last.
    entries: Mutex<Vec<Entry<T>>>,
}

struct Entry<T> {
    id: CheckpointId,
    /// Empty while the first caller loads; the others wait for it.
    cell: Arc<OnceCell<Arc<T>>>,
}

impl<T> Pinned<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Mutex::new(Vec::new()),
        }
    }

    /// The cached checkpoint, or that of `load`, which runs once for all callers who wait. A failed load is not cached.
    pub(super) async fn get<E>(
        &self,
        id: CheckpointId,
        load: impl Future<Output = Result<Arc<T>, E>>,
    ) -> Result<Arc<T>, E> {
        let cell = self.touch(id);
        let loaded = cell.get_or_try_init(|| load).await.cloned();
        if loaded.is_err() {
            self.forget(id);
        }
        loaded
    }

    /// Drops a checkpoint that was deleted.
    pub(super) fn forget(&self, id: CheckpointId) {
        self.lock().retain(|entry| entry.id != id);
    }

    /// Moves or adds the entry to the end, and drops the least recently used ones beyond the capacity.
    fn touch(&self, id: CheckpointId) -> Arc<OnceCell<Arc<T>>> {
        let mut entries = self.lock();
        let cell = match entries.iter().position(|entry| entry.id == id) {
            Some(index) => entries.remove(index).cell,
            None => Arc::default(),
        };
        entries.push(Entry {
            id,
            cell: cell.clone(),
        });
        let excess = entries.len().saturating_sub(self.capacity);
        entries.drain(..excess);
        cell
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry<T>>> {
        // A panic elsewhere leaves a valid list: every change is a single step.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;

    async fn load(pinned: &Pinned<CheckpointId>, id: CheckpointId, loads: &AtomicUsize) {
        let got = pinned
            .get(id, async {
                loads.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Arc::new(id))
            })
            .await;
        assert_eq!(*got.unwrap(), id);
    }

    #[tokio::test]
    async fn concurrent_requests_for_one_checkpoint_load_it_once() {
        let (pinned, loads, id) = (Pinned::new(1), AtomicUsize::new(0), CheckpointId::now());
        tokio::join!(
            load(&pinned, id, &loads),
            load(&pinned, id, &loads),
            load(&pinned, id, &loads)
        );
        assert_eq!(loads.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_least_recently_used_checkpoint_goes_first() {
        let (pinned, loads) = (Pinned::new(2), AtomicUsize::new(0));
        let [a, b, c] = [(); 3].map(|()| CheckpointId::now());
        for id in [a, b, a, c, a] {
            load(&pinned, id, &loads).await;
        }
        assert_eq!(
            loads.load(SeqCst),
            3,
            "a was used again, so c took b's place"
        );
        load(&pinned, b, &loads).await;
        assert_eq!(loads.load(SeqCst), 4, "b was let go");
    }

    #[tokio::test]
    async fn a_failed_load_is_tried_again() {
        let (pinned, id) = (Pinned::new(1), CheckpointId::now());
        assert_eq!(pinned.get(id, async { Err("broken") }).await, Err("broken"));
        assert_eq!(
            pinned.get(id, async { Ok::<_, &str>(Arc::new(7)) }).await,
            Ok(Arc::new(7))
        );
    }

    #[tokio::test]
    async fn without_room_a_checkpoint_serves_its_request_and_is_not_kept() {
        let (pinned, loads, id) = (Pinned::new(0), AtomicUsize::new(0), CheckpointId::now());
        load(&pinned, id, &loads).await;
        load(&pinned, id, &loads).await;
        assert_eq!(loads.load(SeqCst), 2);
    }
}

//! Vectors that were made already, kept in memory by image, checkpoint and side. Concurrent requests for one image encode it once.

use std::sync::Arc;

use moka::future::Cache;

use super::{Row, ServeError, instruments::Instruments};
use crate::types::{CheckpointId, Sha256};
use kith_mcmc::Side;

/// Bytes that an entry takes besides its values: key, counts and links of the cache.
const OVERHEAD: usize = 256;

/// The content of an image, the checkpoint that encodes it, and the side whose encoder does.
pub(super) type Key = (Sha256, CheckpointId, Side);

/// A cache of rows; cheap to clone.
#[derive(Clone)]
pub(super) struct VectorCache {
    /// `None`: nothing is kept.
    rows: Option<Cache<Key, Arc<Row>>>,
    /// `None` in tests.
    counts: Option<Instruments>,
}

impl VectorCache {
    /// A cache of at most `max_bytes`; 0: none. Beyond it the entries that are used least go.
    pub(super) fn new(max_bytes: u64) -> Self {
        let bytes = |_: &Key, row: &Arc<Row>| {
            let values = row.embedding.len() + row.hidden.len();
            u32::try_from(OVERHEAD + values * size_of::<f32>()).unwrap_or(u32::MAX)
        };
        let cache = || {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(bytes)
                .build()
        };
        Self {
            rows: (max_bytes > 0).then(cache),
            counts: None,
        }
    }

    /// This cache, which counts how often it helped.
    pub(super) fn counted_by(self, counts: Instruments) -> Self {
        Self {
            counts: Some(counts),
            ..self
        }
    }

    /// Bytes of what is kept, as of the last look of the cache's upkeep.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.as_ref().map_or(0, Cache::weighted_size)
    }

    /// Whether anything is kept.
    pub(super) fn is_enabled(&self) -> bool {
        self.rows.is_some()
    }

    /// The row of `key`, or that of `encode`, which runs once for all who wait. An error is not kept. If the caller whose `encode` runs goes
    /// away, another one's takes its place.
    pub(super) async fn row(
        &self,
        key: Option<Key>,
        encode: impl Future<Output = Result<Row, ServeError>>,
    ) -> Result<Arc<Row>, ServeError> {
        let mut encoded = false;
        let encode = async {
            encoded = true;
            encode.await.map(Arc::new)
        };
        match (&self.rows, key) {
            (Some(rows), Some(key)) => {
                let row = rows.try_get_with(key, encode).await;
                match &self.counts {
                    Some(counts) if encoded => counts.cache_misses.increment(1),
                    Some(counts) if row.is_ok() => counts.cache_hits.increment(1),
                    _ => {}
                }
                row.map_err(ServeError::of_one_of_many)
            }
            _ => encode.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::oneshot;

    use super::*;

    fn row(value: f32) -> Row {
        Row {
            embedding: vec![value],
            hidden: vec![value],
        }
    }

    fn key(image: &[u8]) -> Option<Key> {
        let id = CheckpointId(uuid::Uuid::nil());
        Some((Sha256::digest(image), id, Side::Anchor))
    }

    #[tokio::test]
    async fn one_image_is_encoded_once_for_all_who_wait_and_for_those_who_come_later() {
        let (cache, passes) = (VectorCache::new(1 << 20), AtomicUsize::new(0));
        let encode = || async {
            passes.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            Ok(row(1.0))
        };
        let (first, second) = tokio::join!(
            cache.row(key(b"a"), encode()),
            cache.row(key(b"a"), encode())
        );
        assert_eq!(first.unwrap(), second.unwrap());
        cache.row(key(b"a"), encode()).await.unwrap();
        assert_eq!(passes.load(SeqCst), 1);
        cache.row(key(b"b"), encode()).await.unwrap();
        assert_eq!(passes.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_its_work_to_another() {
        let cache = VectorCache::new(1 << 20);
        let (_never, gone) = oneshot::channel::<()>();
        let first = tokio::spawn({
            let cache = cache.clone();
            let encode = async {
                let _ = gone.await;
                Err(ServeError::Stopping)
            };
            async move { cache.row(key(b"a"), encode).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { cache.row(key(b"a"), async { Ok(row(2.0)) }).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(*second.await.unwrap().unwrap(), row(2.0));
    }

    #[tokio::test]
    async fn an_error_is_not_kept_and_without_room_nothing_is() {
        for bytes in [0, 1 << 20] {
            let cache = VectorCache::new(bytes);
            let failed = async { Err(ServeError::Stopping) };
            assert!(cache.row(key(b"a"), failed).await.is_err());
            let found = cache.row(key(b"a"), async { Ok(row(1.0)) }).await;
            assert_eq!(*found.unwrap(), row(1.0));
            let again = cache.row(key(b"a"), async { Ok(row(2.0)) }).await;
            let kept = if bytes == 0 { 2.0 } else { 1.0 };
            assert_eq!(*again.unwrap(), row(kept));
        }
    }
}

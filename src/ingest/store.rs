//! Makes prepared images durable: bytes first, then rows in one transaction. An addition runs to its end even if its caller gives up.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tracing::{Instrument, trace_span};

use super::{Ingest, IngestError, prepare::Prepared};
use crate::{
    blobs::{BlobError, BlobKey},
    db::{Db, DbError, NewImage},
    telemetry::traces::STAGE,
    types::Sha256,
};

/// Number of images of one request that are written concurrently, so that their fsyncs overlap.
const SIDE_BY_SIDE: usize = 8;
/// Number of stored images that one query looks up.
const PAGE: usize = 1024;

impl Ingest {
    /// Stores the bytes of `images`, then writes their rows with `insert`.
    ///
    /// It runs as a task of its own, because a caller may drop this future at any time. Dropped between bytes and rows, the addition would
    /// leave bytes that no row names.
    pub(super) async fn store<T, F>(
        &self,
        images: Vec<Prepared>,
        insert: impl FnOnce(Db, Vec<NewImage>) -> F + Send + 'static,
    ) -> Result<T, IngestError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbError>> + Send + 'static,
    {
        // The permit belongs to the task: a caller who gives up does not make room for another addition while this one still runs.
        let permit = self.storing.clone().acquire_owned().await;
        let permit = permit.map_err(|_| IngestError::Stopping)?;
        let this = self.clone();
        let span = trace_span!(target: STAGE, "store", images = images.len());
        let storing = async move {
            let stored = this.store_all(images, insert).await;
            drop(permit);
            stored
        };
        let addition = tokio::spawn(storing.instrument(span));
        addition.await.unwrap_or(Err(IngestError::Stopping))
    }

    async fn store_all<T, F>(
        &self,
        images: Vec<Prepared>,
        insert: impl FnOnce(Db, Vec<NewImage>) -> F,
    ) -> Result<T, IngestError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let ids: Vec<Sha256> = images.iter().map(|one| one.image.sha256).collect();
        let stored = self.bytes_then_rows(images, insert).await;
        if stored.is_err() {
            self.discard(&ids).await;
        }
        stored
    }

    async fn bytes_then_rows<T, F>(
        &self,
        images: Vec<Prepared>,
        insert: impl FnOnce(Db, Vec<NewImage>) -> F,
    ) -> Result<T, IngestError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let _shared = self.erasing.read().await;
        let rows = images.iter().map(|one| one.image.clone()).collect();
        let writing: Vec<_> = images
            .into_iter()
            .map(|one| self.store_bytes(one.image.sha256, one.bytes).boxed())
            .collect();
        // A failure is returned after all writes have ended: the bytes of a write that still runs could not be discarded.
        let written: Vec<Result<(), IngestError>> = stream::iter(writing)
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        written.into_iter().collect::<Result<(), _>>()?;
        Ok(insert(self.db.clone(), rows).await?)
    }

    /// Makes an image's bytes durable.
    ///
    /// If the image is stored and its file holds these bytes, nothing is written. A file that differs is damaged, and writing it again
    /// repairs it. A file without a row is written again too: it may come from a write that was cut off before its folder was synced.
    async fn store_bytes(&self, id: Sha256, bytes: Bytes) -> Result<(), IngestError> {
        if self.db.image(id).await?.is_some() && self.images.holds(id, &bytes).await? {
            return Ok(());
        }
        Ok(self.blobs.put(&BlobKey::Image(id), bytes).await?)
    }

    /// Removes the bytes of an addition that failed, unless a row names them.
    async fn discard(&self, ids: &[Sha256]) {
        let _alone = self.erasing.write().await;
        if let Err(error) = self.remove_unnamed(ids).await {
            tracing::warn!(%error, "bytes of an addition that failed stay until the next start");
        }
    }

    /// Removes the bytes that no row names, which a kill or a failure left behind; returns their number. For a start only: the bytes of an
    /// addition in progress have no row yet.
    ///
    /// # Errors
    /// A failure of the database or of the blob store. What was removed before it stays removed.
    pub async fn sweep_orphans(&self) -> Result<usize, IngestError> {
        let this = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let swept = tokio::task::spawn_blocking(move || {
            let mut swept = 0;
            let each = this
                .blobs
                .each_image(PAGE, std::time::Duration::ZERO, |ids| {
                    let removed = runtime.block_on(this.remove_unnamed(&ids));
                    swept += removed.map_err(|error| BlobError::Store(error.to_string()))?;
                    Ok(())
                });
            each.map(|()| swept)
        });
        let swept = swept
            .await
            .unwrap_or_else(|panic| Err(BlobError::Store(panic.to_string())))?;
        if swept > 0 {
            tracing::info!(swept, "bytes that no row names are removed");
        }
        Ok(swept)
    }

    async fn remove_unnamed(&self, ids: &[Sha256]) -> Result<usize, IngestError> {
        let unnamed = self.db.without_row(ids).await?;
        for id in &unnamed {
            self.blobs.delete(&BlobKey::Image(*id)).await?;
        }
        Ok(unnamed.len())
    }
}

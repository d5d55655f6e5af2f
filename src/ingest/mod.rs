//! Stores uploads: checks and hashes each image, writes its bytes to the blob store, then the rows in one transaction.

mod error;
mod prepare;
mod store;
mod upload;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::{RwLock, Semaphore};
use tracing::{Instrument, trace_span};

use crate::{
    blobs::{BlobError, BlobKey, Blobs},
    db::{Db, DbError, ImageRow, NewImage, PairRow},
    image_store::ImageStore,
    telemetry::traces::STAGE,
    types::Sha256,
};
use kith_pixels::Limits;
use prepare::{Prepared, Preparer};

pub use error::IngestError;
pub use upload::{PairUpload, Place, Upload};

/// Images of one request that are prepared side by side.
const SIDE_BY_SIDE: usize = 8;
/// Requests whose images and rows are written side by side; further ones wait.
const STORING: usize = 16;

/// Stores and erases images and pairs; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    blobs: Blobs,
    db: Db,
    images: ImageStore,
    preparer: Preparer,
    holdout_share: f64,
    /// One permit for each request that is written at this moment.
    storing: Arc<Semaphore>,
    /// Additions share it, an erasure has it alone. An addition trusts bytes that it finds stored; were an erasure to remove them between
    /// that look and the addition's commit, the new row would name bytes that are gone.
    erasing: Arc<RwLock<()>>,
}

impl Ingest {
    /// `holdout_share`: share of pairs that are held out, 0–1.
    pub fn new(blobs: Blobs, db: Db, limits: Limits, holdout_share: f64) -> Self {
        Self {
            images: ImageStore::new(blobs.clone(), db.clone()),
            preparer: Preparer::new(db.clone(), limits),
            blobs,
            db,
            holdout_share,
            storing: Arc::new(Semaphore::new(STORING)),
            erasing: Arc::default(),
        }
    }

    /// Stores an image; `true`: it is new. Durable when this returns. The whole image is decoded once, so that nothing undecodable is stored.
    pub async fn add_image(&self, bytes: Bytes) -> Result<(ImageRow, bool), IngestError> {
        let prepared = self.prepare(None, bytes).await?;
        let insert = |db: Db, images: Vec<NewImage>| async move { db.insert_images(&images).await };
        let row = self.store(vec![prepared], insert).await?.pop();
        Ok(row.ok_or_else(|| DbError::Corrupt("an image was stored without a row".into()))?)
    }

    /// Stores pairs, all or none; `true`: it was there already. Durable when this returns. Of several faults the first unknown id is
    /// reported, else the first image that is not acceptable.
    pub async fn add_pairs(
        &self,
        pairs: Vec<PairUpload>,
    ) -> Result<Vec<(PairRow, bool)>, IngestError> {
        let sides = prepare::sides(pairs);
        let named: Vec<_> = sides.iter().filter_map(prepare::Slot::id).collect();
        for (place, id) in &named {
            if self.db.image(*id).await?.is_none() {
                return Err(unknown(*place, *id));
            }
        }
        let uploads = sides.iter().filter_map(prepare::Slot::bytes);
        // Boxed, as are the writes below: callers need futures that are `Send`, which the compiler cannot see through these closures.
        let preparing: Vec<_> = uploads
            .map(|(place, bytes)| self.prepare(Some(place), bytes).boxed())
            .collect();
        let prepared: Vec<Prepared> = stream::iter(preparing)
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        let new_pairs = prepare::pairs(&sides, &prepared);
        let distinct: BTreeMap<Sha256, Prepared> = prepared
            .into_iter()
            .map(|prepared| (prepared.image.sha256, prepared))
            .collect();
        let holdout_share = self.holdout_share;
        let insert = move |db: Db, images: Vec<NewImage>| async move {
            db.insert_pairs(&images, &new_pairs, holdout_share).await
        };
        let stored = self.store(distinct.into_values().collect(), insert).await;
        // A named image may have been erased since the look above.
        stored.map_err(|error| match error {
            IngestError::Db(DbError::MissingImage(id)) => named
                .iter()
                .find(|(_, named)| *named == id)
                .map_or(error, |(place, _)| unknown(*place, id)),
            error => error,
        })
    }

    async fn prepare(&self, place: Option<Place>, bytes: Bytes) -> Result<Prepared, IngestError> {
        let span = trace_span!(target: STAGE, "decode", bytes = bytes.len());
        self.preparer.prepare(place, bytes).instrument(span).await
    }

    /// Erases an image: row and pairs first, then the bytes. `false`: there was none. Goes on to its end even when the caller goes away.
    pub async fn delete_image(&self, id: Sha256) -> Result<bool, IngestError> {
        let this = self.clone();
        let erasure = tokio::spawn(async move {
            let _alone = this.erasing.write().await;
            let existed = this.db.delete_image(id).await?;
            let (_, mut failed) = this.remove_unlinked().await?;
            // What keeps another's bytes is no failure of this erasure.
            failed
                .remove(&id)
                .map_or(Ok(existed), |error| Err(error.into()))
        });
        erasure.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Removes the bytes of erased images that a kill kept from going. To be called at start.
    pub async fn finish_erasures(&self) -> Result<usize, IngestError> {
        let _alone = self.erasing.write().await;
        let (removed, failed) = self.remove_unlinked().await?;
        let failed = failed.into_values().next();
        failed.map_or(Ok(removed), |error| Err(error.into()))
    }

    /// Removes the bytes of all erased images: how many went, and why others could not.
    async fn remove_unlinked(&self) -> Result<(usize, HashMap<Sha256, BlobError>), IngestError> {
        let unlinked = self.db.unlinked_images().await?;
        let mut failed = HashMap::new();
        for id in &unlinked {
            // It may have been uploaded again before its bytes could be removed.
            if self.db.image(*id).await?.is_none()
                && let Err(error) = self.blobs.delete(&BlobKey::Image(*id)).await
            {
                // One that cannot go must not keep the others.
                tracing::error!(image = %id, %error, "the bytes of a deleted image cannot be removed; the next start tries again");
                failed.insert(*id, error);
                continue;
            }
            self.db.forget_unlinked(*id).await?;
        }
        Ok((unlinked.len() - failed.len(), failed))
    }

    /// The bytes of a stored image, which have its hash.
    pub async fn image_bytes(&self, id: Sha256) -> Result<Option<Bytes>, IngestError> {
        let Some(row) = self.db.image(id).await? else {
            return Ok(None);
        };
        let bytes = self.images.read(id).await?;
        if row.damaged && bytes.is_some() {
            // A person put the file back.
            self.db.clear_damaged(id).await?;
        }
        Ok(bytes)
    }
}

fn unknown(place: Place, id: Sha256) -> IngestError {
    IngestError::UnknownImage { place, id }
}

//! Prepares uploads for storing: hashes them, and decodes them once to prove that they can be.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{
    error::IngestError,
    upload::{PairUpload, Place, Upload},
};
use crate::{
    db::{Db, NewImage, NewPair},
    types::Sha256,
};
use kith_mcmc::PairWeight;
use kith_pixels::{Limits, PixelError};

/// An acceptable image, hashed and decoded once (or known already).
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) image: NewImage,
    pub(super) bytes: Bytes,
}

/// One side of a posted pair and where it stands. A pair without a positive has one.
#[derive(Debug)]
pub(super) struct Slot {
    place: Place,
    upload: Upload,
    /// The pair's; `None` at a positive.
    label: Option<Label>,
}

/// What a pair carries besides its images.
#[derive(Clone, Debug)]
struct Label {
    group: Option<String>,
    weight: Option<PairWeight>,
}

impl Slot {
    pub(super) fn id(&self) -> Option<(Place, Sha256)> {
        match self.upload {
            Upload::Id(id) => Some((self.place, id)),
            Upload::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<(Place, Bytes)> {
        match &self.upload {
            Upload::Bytes(bytes) => Some((self.place, bytes.clone())),
            Upload::Id(_) => None,
        }
    }
}

/// All sides in order: each anchor (with its pair's label), then its positive.
pub(super) fn sides(pairs: Vec<PairUpload>) -> Vec<Slot> {
    let mut slots = Vec::with_capacity(2 * pairs.len());
    for (index, pair) in pairs.into_iter().enumerate() {
        let mut slot = |side, upload, label| {
            let place = Place { index, side };
            slots.push(Slot {
                place,
                upload,
                label,
            });
        };
        let label = Label {
            group: pair.group,
            weight: pair.weight,
        };
        slot("anchor", pair.anchor, Some(label));
        if let Some(upload) = pair.positive {
            slot("positive", upload, None);
        }
    }
    slots
}

/// The pairs again, by ids. `prepared` holds what became of the uploads, in order.
pub(super) fn pairs(slots: &[Slot], prepared: &[Prepared]) -> Vec<NewPair> {
    let mut prepared = prepared.iter().map(|prepared| prepared.image.sha256);
    let mut pairs: Vec<NewPair> = Vec::with_capacity(slots.len());
    for slot in slots {
        let id = match slot.upload {
            Upload::Id(id) => Some(id),
            Upload::Bytes(_) => prepared.next(),
        };
        let Some(id) = id else { break };
        match pairs.last_mut() {
            Some(pair) if slot.place.side == "positive" => pair.positive = id,
            _ => pairs.push(NewPair {
                anchor: id,
                positive: id,
                group: slot.label.as_ref().and_then(|label| label.group.clone()),
                weight: slot.label.as_ref().and_then(|label| label.weight),
            }),
        }
    }
    pairs
}

/// Prepares images, a bounded number at once; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Preparer {
    db: Db,
    limits: Limits,
    /// One permit for each image that is decoded at this moment.
    decoding: Arc<Semaphore>,
}

impl Preparer {
    /// Decodes as many images at once as there are cores.
    pub(super) fn new(db: Db, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            db,
            limits,
            decoding: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Hashes an upload; decodes it unless its row is there. `place`: where it stands, for errors.
    pub(super) async fn prepare(
        &self,
        place: Option<Place>,
        bytes: Bytes,
    ) -> Result<Prepared, IngestError> {
        let refused = |source| IngestError::Pixels { place, source };
        let limits = self.limits.clone();
        let upload = bytes.clone();
        let sha256 = self.blocking(move || {
            // Before the hash, so that what is far too large costs nothing.
            kith_pixels::inspect(&upload, &limits)?;
            Ok(Sha256::digest(&upload))
        });
        let sha256 = sha256.await?.map_err(refused)?;
        if let Some(row) = self.db.image(sha256).await? {
            let image = NewImage {
                sha256,
                bytes: row.bytes,
                width: row.width,
                height: row.height,
                format: row.format,
            };
            return Ok(Prepared { image, bytes });
        }
        let (limits, upload) = (self.limits.clone(), bytes.clone());
        let image = self.blocking(move || examine(sha256, &upload, &limits));
        let image = image.await?.map_err(refused)?;
        Ok(Prepared { image, bytes })
    }

    /// Runs `work` where blocking is allowed, no more at once than there are cores. The permit goes with the work, not with the caller,
    /// so callers who give up do not make room for more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PixelError> + Send + 'static,
    ) -> Result<Result<T, PixelError>, IngestError> {
        let permit = self.decoding.clone().acquire_owned().await;
        let permit = permit.map_err(|_| IngestError::Stopping)?;
        let work = tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop(permit);
            outcome
        });
        work.await.map_err(|_| IngestError::Stopping)
    }
}

fn examine(sha256: Sha256, bytes: &[u8], limits: &Limits) -> Result<NewImage, PixelError> {
    let header = kith_pixels::inspect(bytes, limits)?;
    kith_pixels::decode(bytes, limits)?;
    Ok(NewImage {
        sha256,
        bytes: bytes.len() as u64,
        width: header.width,
        height: header.height,
        format: header.format.to_owned(),
    })
}

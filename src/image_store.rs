//! Reads stored images, checks each against its hash, and lists those whose bytes are missing or wrong.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::{
    blobs::{BlobError, BlobKey, Blobs},
    db::{Db, DbError},
    telemetry::LogThrottle,
    types::Sha256,
};

/// A missing folder damages thousands of images at once: the list has all of them, the log a few.
static WARNINGS: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);

/// Listed images that are checked together.
const PAGE: u32 = 256;

/// Why a stored image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bytes are missing or are not those that were stored.
    #[error(
        "the stored bytes of image {id} are damaged ({what}): post the same image again, which repairs it, or delete it"
    )]
    Damaged {
        /// Which image.
        id: Sha256,
        /// What was found.
        what: String,
    },
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The stored images; cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageStore {
    blobs: Blobs,
    db: Db,
}

impl ImageStore {
    /// Over the stores of one data folder.
    pub fn new(blobs: Blobs, db: Db) -> Self {
        Self { blobs, db }
    }

    /// The bytes of an image, which have its hash. `None`: no such image is stored, or no more. Damage is listed, and logged the first time.
    pub async fn read(&self, id: Sha256) -> Result<Option<Bytes>, ImageError> {
        match self.blobs.image(id).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BlobError::NotFound(_)) => self.report(id, "the file is missing").await,
            Err(BlobError::Damaged(what)) => self.report(id, &what).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an image is stored, whatever its bytes are.
    pub async fn contains(&self, id: Sha256) -> Result<bool, ImageError> {
        Ok(self.db.image(id).await?.is_some())
    }

    async fn report(&self, id: Sha256, what: &str) -> Result<Option<Bytes>, ImageError> {
        if self.db.image(id).await?.is_none() {
            return Ok(None);
        }
        match self.db.mark_damaged(id, what).await {
            Ok(true) => {
                if let Some(left_out) = WARNINGS.ready() {
                    tracing::error!(image = %id, what, left_out, "a stored image is damaged: post it again, or delete it");
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(image = %id, what, %error, "a damaged image cannot be listed");
            }
        }
        Err(ImageError::Damaged {
            id,
            what: what.to_owned(),
        })
    }

    /// Whether exactly these bytes are stored.
    pub async fn holds(&self, id: Sha256, bytes: &Bytes) -> Result<bool, BlobError> {
        match self.blobs.get(&BlobKey::Image(id)).await {
            Ok(stored) => Ok(stored == bytes),
            Err(BlobError::NotFound(_) | BlobError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes images off the list whose bytes are right again, because a person put the files back. Returns their number.
    pub async fn recheck(&self) -> Result<usize, ImageError> {
        let (mut healed, mut after) = (0, None);
        loop {
            let page = self.db.damaged_images(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(healed);
            };
            after = Some(*last);
            for id in page {
                if self.blobs.image(id).await.is_ok() {
                    self.db.clear_damaged(id).await?;
                    healed += 1;
                }
            }
        }
    }
}

//! Small copies of the stored images, made when they are asked for and kept in memory within a bound.

use std::{num::NonZero, sync::Arc, thread};

use bytes::Bytes;
use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::{
    image_store::{ImageError, ImageStore},
    types::Sha256,
};
use kith_pixels::{Limits, PixelError};

/// Longer edge of a thumbnail in pixels: sharp at 80 on a dense screen.
const EDGE: u32 = 160;
/// Bytes that an entry takes besides the file.
const OVERHEAD: usize = 256;

/// Why there is no thumbnail.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// No such image is stored.
    #[error("no image {0} is stored")]
    Unknown(Sha256),
    /// The image could not be read.
    #[error(transparent)]
    Image(Arc<ImageError>),
    /// It could not be decoded.
    #[error(transparent)]
    Pixels(Arc<PixelError>),
    /// The thread that made it failed.
    #[error("the thumbnail could not be made: {0}")]
    Thread(Arc<str>),
}

impl From<ImageError> for ThumbnailError {
    fn from(error: ImageError) -> Self {
        Self::Image(Arc::new(error))
    }
}

/// Makes and keeps thumbnails; cheap to clone.
#[derive(Clone)]
pub struct Thumbnails {
    images: ImageStore,
    limits: Arc<Limits>,
    kept: Cache<Sha256, Bytes>,
    /// One permit for each that is made at this moment.
    making: Arc<Semaphore>,
}

impl Thumbnails {
    /// Keeps at most `max_bytes`.
    pub fn new(images: ImageStore, limits: Limits, max_bytes: u64) -> Self {
        let bytes =
            |_: &Sha256, file: &Bytes| u32::try_from(OVERHEAD + file.len()).unwrap_or(u32::MAX);
        Self {
            images,
            limits: Arc::new(limits),
            kept: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(bytes)
                .build(),
            making: Arc::new(Semaphore::new(
                thread::available_parallelism().map_or(1, NonZero::get),
            )),
        }
    }

    /// The thumbnail of a stored image as a JPEG file. Callers who ask at once share one decode. Errors are not kept: an image may come again.
    ///
    /// # Errors
    /// See [`ThumbnailError`].
    pub async fn get(&self, id: Sha256) -> Result<Bytes, ThumbnailError> {
        let made = self.kept.entry(id).or_try_insert_with(self.make(id)).await;
        let made = made.map_err(|shared| (*shared).clone())?;
        if made.is_fresh() && !self.images.contains(id).await? {
            // Erased after its bytes were read.
            self.forget(id).await;
            return Err(ThumbnailError::Unknown(id));
        }
        Ok(made.into_value())
    }

    /// Drops that of an erased image.
    pub async fn forget(&self, id: Sha256) {
        self.kept.invalidate(&id).await;
    }

    async fn make(&self, id: Sha256) -> Result<Bytes, ThumbnailError> {
        // The semaphore is never closed.
        let _place = self.making.acquire().await;
        let read = self.images.read(id).await;
        let bytes = read?.ok_or(ThumbnailError::Unknown(id))?;
        let limits = self.limits.clone();
        let made = tokio::task::spawn_blocking(move || {
            kith_pixels::decode_with(&bytes, &limits, |image| {
                kith_pixels::thumbnail(&image, EDGE)
            })
        });
        let made = made
            .await
            .map_err(|error| ThumbnailError::Thread(error.to_string().into()))?;
        let file = made.map_err(|error| ThumbnailError::Pixels(Arc::new(error)))?;
        Ok(Bytes::from(file))
    }
}

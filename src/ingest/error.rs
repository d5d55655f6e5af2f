//! The errors of storing and erasing images and pairs.

use super::upload::Place;
use crate::{blobs::BlobError, db::DbError, image_store::ImageError, types::Sha256};
use kith_pixels::PixelError;

/// Why an upload was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An image is not acceptable.
    #[error("{source}")]
    Pixels {
        /// Where, for a pair.
        place: Option<Place>,
        /// Why.
        source: PixelError,
    },
    /// A named image is not stored.
    #[error("no image {id} is stored: upload it first, or send its bytes")]
    UnknownImage {
        /// Where.
        place: Place,
        /// Its id.
        id: Sha256,
    },
    /// The stored bytes of an image cannot be given.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Decoding was cut off: the server is stopping.
    #[error("decoding was cut off: the server is stopping")]
    Stopping,
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

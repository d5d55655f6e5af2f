//! An upload becomes a durable image or pair: check, hash, bytes to `blobs`, then one transaction in `db`.
//! Must never know: HTTP, tensors.

use bytes::Bytes;

use crate::{
    blobs::{BlobError, Blobs},
    db::{Db, DbError, ImageRow, PairRow},
    pixels::{Limits, PixelError},
    types::Sha256,
};

/// One side of a posted pair.
#[derive(Clone, Debug)]
pub enum Upload {
    /// The bytes of an image file.
    Bytes(Bytes),
    /// The id of a stored image.
    Id(Sha256),
}

/// A posted pair.
#[derive(Clone, Debug)]
pub struct PairUpload {
    /// The anchor.
    pub anchor: Upload,
    /// The positive; `None`: the anchor's own two views.
    pub positive: Option<Upload>,
    /// Group name.
    pub group: Option<String>,
}

/// Where in a request something is wrong: index of the pair and `anchor` or `positive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the pair in the request.
    pub index: usize,
    /// `anchor` or `positive`.
    pub side: &'static str,
}

/// What can go wrong.
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
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The way in; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    blobs: Blobs,
    db: Db,
    limits: Limits,
    holdout_share: f64,
}

impl Ingest {
    /// `holdout_share`: share of pairs that are held out, 0–1.
    pub fn new(blobs: Blobs, db: Db, limits: Limits, holdout_share: f64) -> Self {
        Self {
            blobs,
            db,
            limits,
            holdout_share,
        }
    }

    /// Stores an image; `true`: it is new. Durable when this returns. The whole image is decoded once, so that nothing undecodable is stored.
    pub async fn add_image(&self, bytes: Bytes) -> Result<(ImageRow, bool), IngestError> {
        todo!(
            "{} {:?} {:?} {:?} {}",
            bytes.len(),
            self.blobs,
            self.db,
            self.limits,
            self.holdout_share
        )
    }

    /// Stores pairs, all or none; `true`: it was there already. Durable when this returns.
    pub async fn add_pairs(
        &self,
        pairs: Vec<PairUpload>,
    ) -> Result<Vec<(PairRow, bool)>, IngestError> {
        todo!("{}", pairs.len())
    }

    /// Erases an image: row and pairs first, then the bytes. `false`: there was none.
    pub async fn delete_image(&self, id: Sha256) -> Result<bool, IngestError> {
        todo!("{id}")
    }

    /// The bytes of a stored image.
    pub async fn image_bytes(&self, id: Sha256) -> Result<Option<Bytes>, IngestError> {
        todo!("{id}")
    }
}

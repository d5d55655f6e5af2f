//! Bytes by key, durable: content-addressed images and the parts of checkpoints.
//! Must never know: what the bytes mean. Only room that uses `object_store`; all keys come from [`BlobKey`].

use std::path::Path;

use bytes::Bytes;

use crate::types::{CheckpointId, Sha256};

/// Everything that is stored, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobKey {
    /// An uploaded image: `images/ab/abcdef….`
    Image(Sha256),
    /// One part of a checkpoint: `checkpoints/ID/model.safetensors`.
    CheckpointPart(CheckpointId, String),
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("no blob at {0}")]
    NotFound(String),
    /// The store failed.
    #[error("blob store: {0}")]
    Store(String),
}

/// A handle to the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {}

impl Blobs {
    /// A store in a local folder, which is created. Writes are atomic and fsynced (file and folder) before they return.
    pub fn local(root: &Path) -> Result<Self, BlobError> {
        todo!("{root:?}")
    }
    /// Puts bytes; replaces what was there.
    pub async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        todo!("{key:?} {}", bytes.len())
    }
    /// Whether the blob is there.
    pub async fn exists(&self, key: &BlobKey) -> Result<bool, BlobError> {
        todo!("{key:?}")
    }
    /// All bytes of a blob.
    pub async fn get(&self, key: &BlobKey) -> Result<Bytes, BlobError> {
        todo!("{key:?}")
    }
    /// Removes a blob; a missing one is no error.
    pub async fn delete(&self, key: &BlobKey) -> Result<(), BlobError> {
        todo!("{key:?}")
    }
    /// Ids of all folders below `checkpoints/`, complete or not, ascending.
    pub async fn checkpoint_ids(&self) -> Result<Vec<CheckpointId>, BlobError> {
        todo!()
    }
    /// Names of a checkpoint's parts that are there.
    pub async fn checkpoint_parts(&self, id: CheckpointId) -> Result<Vec<String>, BlobError> {
        todo!("{id}")
    }
}

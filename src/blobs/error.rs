//! The errors of the blob store.

use std::io;

use crate::disk;

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("no blob at {0}")]
    NotFound(String),
    /// The bytes are not those that were stored.
    #[error("stored bytes are damaged: {0}")]
    Damaged(String),
    /// The disk is full.
    #[error(
        "the disk of the data folder is full: free space on it, delete images or checkpoints, or move the folder to a larger disk"
    )]
    Full,
    /// The path names another folder than the one that was opened.
    #[error(
        "{0} was removed or replaced while kith used it: put it back, or stop kith and start it again"
    )]
    Replaced(String),
    /// The store failed.
    #[error("blob store: {0}")]
    Store(String),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::NotFound(path),
            error if disk::is_full(&error) => Self::Full,
            error if disk::is_unreadable(&error) => Self::Damaged(error.to_string()),
            error => Self::Store(error.to_string()),
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        if disk::is_full(&error) {
            return Self::Full;
        }
        Self::Store(error.to_string())
    }
}

//! The errors of search.

use crate::{
    checkpoint::CheckpointError, db::DbError, image_store::ImageError, serve::ServeError,
    types::Sha256,
};

/// Why a search could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// `search.enabled` is false.
    #[error("this server does not search: set search.enabled to true and start it again")]
    Disabled,
    /// Too many searches wait.
    #[error("search.queue_requests = {0} searches wait already: retry in a moment")]
    Overloaded(usize),
    /// The image that a query names is not stored.
    #[error("no image {0} is stored: send the image itself, or an id of GET /v1/images")]
    UnknownImage(Sha256),
    /// The vector of a query does not fit.
    #[error("{0}")]
    Vector(String),
    /// The query's image could not be embedded.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The checkpoint is not there or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The stored image could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A thread of the search failed.
    #[error("the search failed: {0}")]
    Thread(String),
}

//! The errors of training: those that callers see, and those that end a run.

use std::any::Any;

use crate::{
    blobs::BlobError, checkpoint::CheckpointError, db::DbError, image_store::ImageError,
    types::CheckpointId,
};
use kith_learn::{LearnError, Unreadable};
use kith_nn::NnError;

/// What can go wrong when the trainer is asked for something.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The trainer is not there any more.
    #[error("the trainer is stopping")]
    Stopped,
    /// A value cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Not now: the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// `training.enabled` is false: there is nothing to pause or to set a rate for.
    #[error("training is off: set training.enabled = true and start the server again")]
    Disabled,
    /// The last snapshot of a stop could not be written.
    #[error(
        "the last snapshot could not be written ({0}): what was learned since the newest complete checkpoint is lost"
    )]
    Unsaved(String),
    /// A snapshot that a caller waits for could not be written.
    #[error("snapshot {id} could not be written: GET /v1/checkpoints/{id} has the reason")]
    Unwritten {
        /// Which.
        id: CheckpointId,
        /// What was wrong.
        failure: WriteFailure,
    },
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Why a snapshot could not be written, as far as its caller can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// The weights are not finite.
    NotFinite,
    /// The disk is full.
    StorageFull,
    /// Anything else.
    Other,
}

impl From<&CheckpointError> for WriteFailure {
    fn from(error: &CheckpointError) -> Self {
        match error {
            CheckpointError::NotFinite(_) => Self::NotFinite,
            CheckpointError::Blobs(BlobError::Full) | CheckpointError::Db(DbError::Full) => {
                Self::StorageFull
            }
            _ => Self::Other,
        }
    }
}

/// Why a run of training ended: one sentence, for the log and the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrainFailure {
    /// A store failed. The state in memory is intact: training goes on once the store works again.
    #[error("{0}")]
    Store(String),
    /// The state in memory is incomplete, or could not be built.
    #[error("{0}")]
    Broken(String),
}

impl TrainFailure {
    /// The failure of a thread that panicked with `panic`.
    pub(super) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::Broken(format!("panicked: {}", message.unwrap_or("no message")))
    }

    pub(super) fn broken(what: impl ToString) -> Self {
        Self::Broken(what.to_string())
    }
}

impl From<CheckpointError> for TrainFailure {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Blobs(_) | CheckpointError::Db(_) => Self::Store(error.to_string()),
            error => Self::Broken(error.to_string()),
        }
    }
}

macro_rules! failure_from {
    ($variant:ident: $($error:ty),+) => {
        $(impl From<$error> for TrainFailure {
            fn from(error: $error) -> Self {
                Self::$variant(error.to_string())
            }
        })+
    };
}
failure_from!(Store: BlobError, DbError, ImageError, Unreadable);
failure_from!(Broken: LearnError, NnError, std::io::Error, rayon::ThreadPoolBuildError);

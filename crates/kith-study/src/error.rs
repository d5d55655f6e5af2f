//! The errors of a study.

use std::{io, path::Path};

use kith_learn::LearnError;
use kith_nn::NnError;

/// Why a study fails before its verdict.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A setting or the images cannot be used; the message says which and what to do.
    #[error("{0}")]
    Config(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Its path.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A training step failed.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A plot of the report cannot be drawn: its name and the cause.
    #[error("{0} cannot be drawn: {1}")]
    Plot(String, String),
}

impl StudyError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        Self::Io { path, source }
    }

    pub(super) fn unknown_series(name: &str) -> Self {
        Self::config(format!("no series {name}"))
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }
}

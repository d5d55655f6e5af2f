//! Why a study ends before its verdict. Must never know: what is studied.

use std::{io, path::Path};

use kith_learn::LearnError;
use kith_nn::NnError;

/// Why a study ends before its verdict.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A setting or the images cannot be used; says which and what to do.
    #[error("{0}")]
    Config(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A step failed.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A picture of the report cannot be drawn.
    #[error("{0} cannot be drawn: {1}")]
    Plot(String, String),
}

impl StudyError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        Self::Io { path, source }
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }
}

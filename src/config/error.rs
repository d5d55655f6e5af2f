//! Why settings cannot be used.

/// A setting that cannot be used, by its key, and what it must be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

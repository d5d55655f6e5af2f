//! What can be wrong with a key.

use crate::db::DbError;

/// Why a key is not accepted, or cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The server has keys and the request has none.
    #[error(
        "this server needs a key: send it as \"Authorization: Bearer KEY\"; `kith key create` makes one"
    )]
    Missing,
    /// No key in use has this text.
    #[error("the key is not one of this server's: it may be mistyped, or revoked")]
    Unknown,
    /// The key's time is over.
    #[error("the key expired at {0}: ask for a new one")]
    Expired(jiff::Timestamp),
    /// A name that a key may not have.
    #[error(
        "{0:?} cannot be a key's name: it has 1 to 64 letters, digits, '-', '_', '.' or '@', and does not look like an id"
    )]
    BadName(String),
    /// A new key that would be refused from the start.
    #[error("the key would expire at {0}, which is over: name a later time")]
    Past(jiff::Timestamp),
    /// No key has this id or name.
    #[error("there is no key {0}: `kith key list` shows them")]
    NotFound(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

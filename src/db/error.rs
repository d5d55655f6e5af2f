//! The errors of the database, as far as a caller can do something about them.

use crate::{
    disk,
    types::{CheckpointId, Sha256},
};

/// SQLite's result codes (the low byte), and one extended code.
const FULL: i32 = 13;
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;
/// The shared index of the WAL cannot grow.
const INDEX_CANNOT_GROW: i32 = 4874;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database refused or failed.
    #[error("database: {0}")]
    Sql(String),
    /// The disk is full.
    #[error(
        "the disk of the data folder is full: free space on it, delete images or checkpoints, or move the folder to a larger disk"
    )]
    Full,
    /// The file is damaged, or no database.
    #[error("the database kith.db is damaged ({0}): stop kith and put kith.db back from a backup")]
    Damaged(String),
    /// The file was written by a kith that knows more tables than this one.
    #[error(
        "this data folder was last used by a newer kith (migration {0} is not known to this one): use that version or a later one"
    )]
    Newer(i64),
    /// The file was written by a kith that knew fewer tables than this one.
    #[error(
        "this data folder was last used by an older kith: start the server on it once, which brings its database up to date"
    )]
    Older,
    /// The path names another file than the one that was opened.
    #[error(
        "{0} was removed or replaced while kith used it: put it back, or stop kith and start it again"
    )]
    Replaced(String),
    /// A row holds what it never should.
    #[error("database row: {0}")]
    Corrupt(String),
    /// A pair is stored with another group than it is posted with.
    #[error(
        "this pair is stored {}, and posted with group {posted:?}: a pair has one group. Post it without a group to keep that, or delete pair {pair} first",
        stored.as_ref().map_or("without a group".to_owned(), |group| format!("with group {group:?}"))
    )]
    OtherGroup {
        /// Its place in the request.
        index: usize,
        /// The stored pair.
        pair: uuid::Uuid,
        /// The group it has.
        stored: Option<String>,
        /// The group it was posted with.
        posted: String,
    },
    /// A pair is stored with another weight than it is posted with.
    #[error(
        "this pair is stored with weight {stored}, and posted with weight {posted}: post it without a weight to keep that, or delete pair {pair} first"
    )]
    OtherWeight {
        /// Its place in the request.
        index: usize,
        /// The stored pair.
        pair: uuid::Uuid,
        /// The weight it has.
        stored: f64,
        /// The weight it was posted with.
        posted: f64,
    },
    /// A pair names an image that is not stored.
    #[error("no image {0} is stored")]
    MissingImage(Sha256),
    /// The name of a new key belongs to another one.
    #[error("there is a key named {0} already: choose another name, or revoke that key first")]
    KeyNameTaken(String),
    /// There are as many keys in use as there may be.
    #[error("there are {0} keys already: revoke one first")]
    TooManyKeys(usize),
    /// A checkpoint that should have a row has none.
    #[error("no row for checkpoint {0}")]
    MissingCheckpoint(CheckpointId),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let code: i32 = code.and_then(|code| code.parse().ok()).unwrap_or_default();
        match (code, code & 0xff) {
            (INDEX_CANNOT_GROW, _) | (_, FULL) => Self::Full,
            (_, CORRUPT | NOT_A_DATABASE) => Self::Damaged(error.to_string()),
            _ if disk::is_full(&error) => Self::Full,
            _ => match error {
                sqlx::Error::ColumnDecode { index, source } => {
                    tracing::error!(
                        column = index,
                        error = source,
                        "a database row cannot be read"
                    );
                    Self::Corrupt(format!("column {}", index.trim_matches('"')))
                }
                error => Self::Sql(error.to_string()),
            },
        }
    }
}

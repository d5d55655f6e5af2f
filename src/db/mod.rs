//! Every SQL statement of the project. SQLite (WAL, synchronous FULL), migrations embedded from `migrations/`.
//! Only this module uses `sqlx`.

mod checkpoint_row;
mod checkpoints;
mod choices;
mod damage;
mod images;
mod metrics;
mod open;
mod pairs;
mod reserve;
mod rows;
mod split;

use std::sync::{Arc, atomic::AtomicU64};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqlitePool, Transaction, pool::PoolConnection};

use crate::{
    disk::Place,
    types::{CheckpointId, Sha256},
};
use kith_mcmc::{GroupKey, ImageKey, PairKey};

pub use self::{
    checkpoint_row::{
        CheckpointRole, CheckpointRow, CheckpointStatus, DecidedBy, Decision, Verdict,
    },
    choices::Alias,
};

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
    /// A pair names an image that is not stored.
    #[error("no image {0} is stored")]
    MissingImage(Sha256),
    /// A checkpoint that should have a row has none.
    #[error("no row for checkpoint {0}")]
    MissingCheckpoint(CheckpointId),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        open::classify(&error)
    }
}

/// A handle to the database; cheap to clone.
///
/// One connection writes and several read. Writers wait for that connection in order of arrival, so within the process nothing is ever
/// refused as busy, and a batch of rows is one transaction with one fsync. Readers see the last commit and never wait for a writer.
#[derive(Clone, Debug)]
pub struct Db {
    writer: SqlitePool,
    readers: SqlitePool,
    /// The file that was opened.
    file: Arc<Place>,
    /// Room for erasures.
    reserve: reserve::Reserve,
    /// Rows of the training series that were written since it was last thinned.
    fresh_metrics: Arc<AtomicU64>,
}

/// A stored image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRow {
    /// Its dense key.
    pub key: ImageKey,
    /// Its id.
    pub sha256: Sha256,
    /// Encoded size.
    pub bytes: u64,
    /// Pixels across, as stored.
    pub width: u32,
    /// Pixels down, as stored.
    pub height: u32,
    /// `png`, `jpeg`, ….
    pub format: String,
    /// When it first arrived.
    pub created_at: Timestamp,
    /// Whether its bytes were found missing or wrong when they were last read.
    pub damaged: bool,
}

/// An image to store, its bytes already durable.
#[derive(Clone, Debug, PartialEq)]
pub struct NewImage {
    /// Its id.
    pub sha256: Sha256,
    /// Encoded size.
    pub bytes: u64,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `png`, `jpeg`, ….
    pub format: String,
}

/// A pair to store; both images must be rows already or come in the same call.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPair {
    /// The anchor image's id.
    pub anchor: Sha256,
    /// The positive's id; equal to `anchor` when one image makes its own views.
    pub positive: Sha256,
    /// Group name.
    pub group: Option<String>,
}

/// What a pair is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Held out: evaluation only.
    Holdout,
    /// Neither: it joins a held-out image to a trained one, so either use would leak.
    Unused,
}

/// A stored pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairRow {
    /// Its dense key, ascending by arrival.
    pub key: PairKey,
    /// Its id outside: a UUIDv7.
    pub id: uuid::Uuid,
    /// The anchor image.
    pub anchor: Sha256,
    /// The positive image.
    pub positive: Sha256,
    /// Group name.
    pub group: Option<String>,
    /// Its use.
    pub split: Split,
    /// When it arrived.
    pub created_at: Timestamp,
}

/// A pair as trainer and evaluator read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairKeys {
    /// The pair.
    pub pair: PairKey,
    /// Anchor and positive.
    pub images: [ImageKey; 2],
    /// Its group.
    pub group: Option<GroupKey>,
    /// Its use.
    pub split: Split,
}

/// A pair that was erased; `sequence` ascends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Position in the log of erasures.
    pub sequence: u64,
    /// The pair that is gone.
    pub pair: PairKey,
}

/// One row of the training series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step.
    pub step: u64,
    /// Mean loss since the last row.
    pub loss: f32,
    /// Estimate of the global loss.
    pub global_loss_estimate: f32,
    /// Share of proposals accepted.
    pub acceptance_rate: f32,
    /// Global gradient norm before clipping.
    pub gradient_norm: f32,
    /// Spread of the batch's embeddings.
    pub spread: f32,
    /// Learning rate.
    pub learning_rate: f32,
    /// Training images encoded per second.
    pub images_per_second: f32,
    /// When.
    pub at: Timestamp,
}

impl Db {
    /// Answers when the database does.
    pub async fn ping(&self) -> Result<(), DbError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Waits for running statements and closes.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that holds the write lock from its start, so that what it reads stays true until it commits.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, DbError> {
        self.check_file()?;
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The connection that writes, for a single statement.
    async fn writer(&self) -> Result<PoolConnection<Sqlite>, DbError> {
        self.check_file()?;
        Ok(self.writer.acquire().await?)
    }

    /// What is written into a file that was removed is lost, so nothing is.
    fn check_file(&self) -> Result<(), DbError> {
        if self.file.holds() {
            return Ok(());
        }
        Err(DbError::Replaced(self.file.path().display().to_string()))
    }
}

//! Every SQL statement of the project. SQLite (WAL, synchronous FULL), migrations embedded from `migrations/`.
//! Must never know: bytes of images, tensors, HTTP. Only room that uses `sqlx`.

mod checkpoints;
mod images;
mod metrics;
mod pairs;
mod rows;
mod split;

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::types::{CheckpointId, GroupKey, ImageKey, PairKey, Sha256};

/// Connections that read side by side.
const READERS: u32 = 4;
/// How long a statement waits for another process that writes (`kith evaluate` on a running server's folder, say).
const BUSY: Duration = Duration::from_secs(10);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database refused or failed.
    #[error("database: {0}")]
    Sql(String),
    /// A row holds what it never should.
    #[error("database row: {0}")]
    Corrupt(String),
    /// A pair names an image that is not stored.
    #[error("no image {0} is stored")]
    MissingImage(Sha256),
    /// A checkpoint that should have a row has none.
    #[error("no row for checkpoint {0}")]
    MissingCheckpoint(CheckpointId),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error.to_string())
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

/// Whether a checkpoint's parts are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// Parts are being written.
    Writing,
    /// The manifest is there.
    Complete,
    /// Writing failed or was cut off.
    Failed,
}

/// What a checkpoint is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointRole {
    /// Not judged, or refused by the gate.
    Candidate,
    /// It serves. At most one.
    Live,
    /// It served before.
    Retired,
}

/// A checkpoint's row.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRow {
    /// Its id.
    pub id: CheckpointId,
    /// Whether it is complete.
    pub status: CheckpointStatus,
    /// Its role.
    pub role: CheckpointRole,
    /// Training step at which it was taken.
    pub step: u64,
    /// Sum of its parts' bytes; 0 while writing.
    pub bytes: u64,
    /// The caller's note.
    pub note: Option<String>,
    /// The checkpoint it was trained from.
    pub parent: Option<CheckpointId>,
    /// When it was taken.
    pub created_at: Timestamp,
    /// The newest evaluation, as JSON ([`crate::db::Db::set_evaluation`]).
    pub evaluation: Option<serde_json::Value>,
    /// Why it failed or was refused.
    pub reason: Option<String>,
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
    /// Opens (creates) the database file and runs the migrations.
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        let migrations = sqlx::migrate!();
        let migrated = migrations.run(&writer).await;
        migrated.map_err(|error| DbError::Sql(error.to_string()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.pragma("query_only", "ON"))
            .await?;
        Ok(Self { writer, readers })
    }

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
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

//! Every SQL statement of the project. SQLite (WAL, synchronous FULL), migrations embedded from `migrations/`.
//! Must never know: bytes of images, tensors, HTTP. Only room that uses `sqlx`.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::{CheckpointId, GroupKey, ImageKey, PairKey, Sha256};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database refused or failed.
    #[error("database: {0}")]
    Sql(String),
    /// A row holds what it never should.
    #[error("database row: {0}")]
    Corrupt(String),
}

/// A handle to the database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {}

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
    /// It serves. Exactly one.
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
        todo!("{path:?}")
    }
    /// Answers when the database does.
    pub async fn ping(&self) -> Result<(), DbError> {
        todo!()
    }
    /// Waits for running statements and closes.
    pub async fn close(&self) {
        todo!()
    }

    // images.rs
    /// Stores images; those that are there keep their row. Answers in order; `true`: it is new.
    pub async fn insert_images(
        &self,
        images: &[NewImage],
    ) -> Result<Vec<(ImageRow, bool)>, DbError> {
        todo!("{images:?}")
    }
    /// One image.
    pub async fn image(&self, sha256: Sha256) -> Result<Option<ImageRow>, DbError> {
        todo!("{sha256}")
    }
    /// A page of images with `key > after`, ascending.
    pub async fn images_after(
        &self,
        after: ImageKey,
        limit: u32,
    ) -> Result<Vec<ImageRow>, DbError> {
        todo!("{after:?} {limit}")
    }
    /// The ids of images by key, in the order asked; `None` for one that is gone.
    pub async fn image_ids(&self, keys: &[ImageKey]) -> Result<Vec<Option<Sha256>>, DbError> {
        todo!("{keys:?}")
    }
    /// Erases an image and all its pairs, and logs the pairs as erased. `false`: there was none.
    pub async fn delete_image(&self, sha256: Sha256) -> Result<bool, DbError> {
        todo!("{sha256}")
    }
    /// Number of images.
    pub async fn count_images(&self) -> Result<u64, DbError> {
        todo!()
    }

    // pairs.rs
    /// Stores images and pairs in one transaction, all or none. A pair that is there (same two images, either way round) is answered
    /// as it is, with `true` for duplicate. New pairs are split by `holdout_share` (see `split_of` in pairs.rs).
    pub async fn insert_pairs(
        &self,
        images: &[NewImage],
        pairs: &[NewPair],
        holdout_share: f64,
    ) -> Result<Vec<(PairRow, bool)>, DbError> {
        todo!("{images:?} {pairs:?} {holdout_share}")
    }
    /// One pair.
    pub async fn pair(&self, id: uuid::Uuid) -> Result<Option<PairRow>, DbError> {
        todo!("{id}")
    }
    /// A page of pairs with `key > after`, ascending, of one group if given.
    pub async fn pairs_after(
        &self,
        after: PairKey,
        limit: u32,
        group: Option<&str>,
    ) -> Result<Vec<PairRow>, DbError> {
        todo!("{after:?} {limit} {group:?}")
    }
    /// The same in keys only, for trainer and evaluator (all splits).
    pub async fn pair_keys_after(
        &self,
        after: PairKey,
        limit: u32,
    ) -> Result<Vec<PairKeys>, DbError> {
        todo!("{after:?} {limit}")
    }
    /// Erases a pair (its images stay) and logs it. `false`: there was none.
    pub async fn delete_pair(&self, id: uuid::Uuid) -> Result<bool, DbError> {
        todo!("{id}")
    }
    /// Erasures after `sequence`, ascending.
    pub async fn erasures_after(&self, sequence: u64, limit: u32) -> Result<Vec<Erasure>, DbError> {
        todo!("{sequence} {limit}")
    }
    /// Number of pairs by split: (train, holdout, unused).
    pub async fn count_pairs(&self) -> Result<(u64, u64, u64), DbError> {
        todo!()
    }

    // checkpoints.rs
    /// A new row with status `writing`, role `candidate`.
    pub async fn insert_checkpoint(&self, row: &CheckpointRow) -> Result<(), DbError> {
        todo!("{row:?}")
    }
    /// Marks a checkpoint complete.
    pub async fn complete_checkpoint(&self, id: CheckpointId, bytes: u64) -> Result<(), DbError> {
        todo!("{id} {bytes}")
    }
    /// Marks a checkpoint failed, with the reason.
    pub async fn fail_checkpoint(&self, id: CheckpointId, reason: &str) -> Result<(), DbError> {
        todo!("{id} {reason}")
    }
    /// Stores the newest evaluation of a checkpoint, and why it was refused if it was.
    pub async fn set_evaluation(
        &self,
        id: CheckpointId,
        evaluation: &serde_json::Value,
        reason: Option<&str>,
    ) -> Result<(), DbError> {
        todo!("{id} {evaluation} {reason:?}")
    }
    /// In one transaction: the live checkpoint retires, `id` is live. `false`: it is not there or not complete.
    pub async fn promote_checkpoint(&self, id: CheckpointId) -> Result<bool, DbError> {
        todo!("{id}")
    }
    /// The live checkpoint.
    pub async fn live_checkpoint(&self) -> Result<Option<CheckpointRow>, DbError> {
        todo!()
    }
    /// One checkpoint.
    pub async fn checkpoint(&self, id: CheckpointId) -> Result<Option<CheckpointRow>, DbError> {
        todo!("{id}")
    }
    /// All checkpoints, newest first.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointRow>, DbError> {
        todo!()
    }
    /// Removes a row.
    pub async fn delete_checkpoint(&self, id: CheckpointId) -> Result<bool, DbError> {
        todo!("{id}")
    }

    // metrics.rs
    /// Appends to the training series; a row of the same step is replaced (a resumed run writes it again).
    pub async fn insert_metrics(&self, rows: &[StepMetrics]) -> Result<(), DbError> {
        todo!("{rows:?}")
    }
    /// The series from `since` on, thinned evenly to at most `limit` rows, the last one kept.
    pub async fn metrics_since(&self, since: u64, limit: u32) -> Result<Vec<StepMetrics>, DbError> {
        todo!("{since} {limit}")
    }
}

//! The record of a checkpoint, and its columns.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};

use super::{DbError, rows};
use crate::types::CheckpointId;

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
    /// It never served.
    Candidate,
    /// It serves. At most one.
    Live,
    /// It served before.
    Retired,
}

/// What the newest evaluation found about a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Better than the live one at that time.
    Better,
    /// Chance explains the difference.
    Undecided,
    /// Worse than the best one at that time.
    Worse,
    /// There were too few held-out pairs to compare by.
    Untested,
    /// It is too near its fresh weights to be judged.
    Untrained,
    /// Its embeddings collapsed, or are not finite.
    Collapsed,
    /// It could not be read when it was wanted.
    Damaged,
}

/// Who decided that a checkpoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecidedBy {
    /// A caller.
    Person,
    /// The gate.
    Gate,
    /// The start of the server, since nothing else could serve.
    Start,
}

/// A decision that a checkpoint serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Who.
    pub by: DecidedBy,
    /// Why, as a sentence.
    pub why: String,
    /// Whether the gate must leave it.
    pub hold: bool,
}

/// A checkpoint's row.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRow {
    /// Its id.
    pub id: CheckpointId,
    /// Its place in the order in which checkpoints were taken. The database gives it: 0 before that.
    pub sequence: u64,
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
    /// When it was taken, by this machine's clock. For people: nothing is ordered by it.
    pub created_at: Timestamp,
    /// The newest evaluation, as JSON.
    pub evaluation: Option<serde_json::Value>,
    /// Its answers to the held-out questions, as JSON.
    pub score: Option<serde_json::Value>,
    /// What the evaluation found.
    pub verdict: Option<Verdict>,
    /// Who decided that it serves, if it ever did.
    pub decided_by: Option<DecidedBy>,
    /// When that was decided.
    pub decided_at: Option<Timestamp>,
    /// Why it failed, serves, or was refused.
    pub reason: Option<String>,
    /// Whether retention leaves it alone.
    pub kept: bool,
    /// Whether it serves by a person's choice that holds.
    pub held: bool,
}

impl CheckpointRow {
    /// A checkpoint that is about to be written.
    pub fn new(id: CheckpointId, step: u64, created_at: Timestamp) -> Self {
        Self {
            id,
            sequence: 0,
            status: CheckpointStatus::Writing,
            role: CheckpointRole::Candidate,
            step,
            bytes: 0,
            note: None,
            parent: None,
            created_at,
            evaluation: None,
            score: None,
            verdict: None,
            decided_by: None,
            decided_at: None,
            reason: None,
            kept: false,
            held: false,
        }
    }

    pub(super) fn from_columns(row: &SqliteRow) -> Result<Self, DbError> {
        let parent: Option<&[u8]> = row.try_get("parent")?;
        let decided_at: Option<&str> = row.try_get("decided_at")?;
        Ok(Self {
            id: CheckpointId(rows::uuid(row.try_get("id")?)?),
            sequence: row.try_get("sequence")?,
            status: read(row.try_get("status")?)?,
            role: read(row.try_get("role")?)?,
            step: row.try_get("step")?,
            bytes: row.try_get("bytes")?,
            note: row.try_get("note")?,
            parent: parent.map(rows::uuid).transpose()?.map(CheckpointId),
            created_at: rows::timestamp(row, "created_at")?,
            evaluation: json(row, "evaluation")?,
            score: json(row, "score")?,
            verdict: optional(row, "verdict")?,
            decided_by: optional(row, "decided_by")?,
            decided_at: decided_at
                .map(str::parse)
                .transpose()
                .map_err(rows::corrupt)?,
            reason: row.try_get("reason")?,
            kept: row.try_get("kept")?,
            held: row.try_get("held")?,
        })
    }
}

/// The name of a value that serde writes as one word; the tables hold the same words.
pub(super) fn name(value: impl Serialize) -> Result<String, DbError> {
    match serde_json::to_value(value).map_err(rows::corrupt)? {
        serde_json::Value::String(name) => Ok(name),
        other => Err(rows::corrupt(format!("{other} is no name"))),
    }
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Result<T, DbError> {
    serde_json::from_value(name.into()).map_err(rows::corrupt)
}

fn optional<T: for<'de> Deserialize<'de>>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<T>, DbError> {
    row.try_get::<Option<&str>, _>(column)?
        .map(read)
        .transpose()
}

fn json(row: &SqliteRow, column: &str) -> Result<Option<serde_json::Value>, DbError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(serde_json::from_str)
        .transpose()
        .map_err(rows::corrupt)
}

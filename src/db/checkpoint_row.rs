//! The record of a checkpoint.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::CheckpointId;

/// Whether a checkpoint's parts are all there.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// Parts are being written.
    Writing,
    /// The manifest is there.
    Complete,
    /// Writing failed or was cut off.
    Failed,
}

/// What a checkpoint is to the server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum CheckpointRole {
    /// It never served.
    Candidate,
    /// It serves. At most one.
    Live,
    /// It served before.
    Retired,
}

/// What the newest evaluation found about a checkpoint.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
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
}

//! The records that callers of this module store and read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::Sha256;
use kith_mcmc::{GroupKey, ImageKey, PairKey, PairWeight};

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
    /// How much it counts in the loss; `None`: 1.
    pub weight: Option<PairWeight>,
}

/// What a pair is used for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
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
    /// How much it counts in the loss.
    pub weight: PairWeight,
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
    /// How much it counts in the loss.
    pub weight: PairWeight,
    /// Its use.
    pub split: Split,
    /// When it arrived.
    pub created_at: Timestamp,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
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
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// What the holder of a key may do. Each scope includes those before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for embeddings.
    Embed,
    /// Store, read and delete images and pairs; read how training goes.
    Write,
    /// Change training, checkpoints and aliases; download checkpoints.
    Admin,
}

/// A key, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRow {
    /// A UUIDv7.
    pub id: uuid::Uuid,
    /// What people call it.
    pub name: String,
    /// What its holder may do.
    pub scope: Scope,
    /// Of its text.
    pub sha256: Sha256,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused; `None`: it is in use.
    pub revoked_at: Option<Timestamp>,
}

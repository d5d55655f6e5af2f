//! The life of a checkpoint: parts, manifest, write, verify, load, evaluate, gate, promote, retention.
//! Must never know: how training or serving work.

use serde::{Deserialize, Serialize};

use crate::{
    blobs::{BlobError, Blobs},
    db::{CheckpointRow, Db, DbError},
    eval::{Geometry, Retrieval},
    mcmc::ChainColumns,
    nn::{Device, EncoderConfig, NnError},
    pixels::Limits,
    types::{CheckpointId, NamedArray},
};

/// The trainer's position: everything besides the arrays that a bit-exact resume needs (`trainer.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Steps done.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Order key of the last pair that this epoch drew: `(hash, pair)`; `None` at its start.
    pub cursor: Option<(u64, u32)>,
    /// Factor on the learning rate, lowered by each recovery from collapse.
    pub rate_scale: f32,
    /// Learning rate set by a caller, in place of the schedule's base rate.
    pub rate_override: Option<f32>,
    /// Steps skipped because a loss or gradient was not finite.
    pub skipped: u64,
}

/// A consistent copy of the trainer at one step boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights.
    pub model: Vec<NamedArray>,
    /// The optimiser's moments.
    pub optimizer: Vec<NamedArray>,
    /// The chain table.
    pub chains: ChainColumns,
    /// The position.
    pub trainer: TrainerState,
}

/// The identity given to a snapshot when it is asked for.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its id.
    pub id: CheckpointId,
    /// The caller's note.
    pub note: Option<String>,
    /// The checkpoint it was trained from.
    pub parent: Option<CheckpointId>,
}

/// One part in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// File name.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hexadecimal SHA-256.
    pub sha256: String,
}

/// `manifest.json`: a checkpoint exists when this does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// All other parts.
    pub parts: Vec<Part>,
    /// When it was taken.
    pub created_at: jiff::Timestamp,
    /// The caller's note.
    pub note: Option<String>,
    /// The checkpoint it was trained from.
    pub parent: Option<CheckpointId>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No such checkpoint, or it is not complete.
    #[error("no complete checkpoint {0}")]
    Unknown(CheckpointId),
    /// A part is missing, or its hash or content is wrong.
    #[error("checkpoint {id}: {what}")]
    Damaged {
        /// Which.
        id: CheckpointId,
        /// What is wrong.
        what: String,
    },
    /// The live checkpoint cannot be deleted.
    #[error("checkpoint {0} is live: promote another first")]
    Live(CheckpointId),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

/// A verified model: what serving and evaluation need.
#[derive(Clone, Debug)]
pub struct Model {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights.
    pub arrays: Vec<NamedArray>,
}

/// The checkpoints of a data folder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    blobs: Blobs,
    db: Db,
}

impl Checkpoints {
    /// A handle.
    pub fn new(blobs: Blobs, db: Db) -> Self {
        Self { blobs, db }
    }
    /// Registers a snapshot as `writing`, so that it has an id to answer with.
    pub async fn begin(&self, label: &Label, step: u64) -> Result<(), CheckpointError> {
        todo!("{label:?} {step} {:?} {:?}", self.blobs, self.db)
    }
    /// Writes the parts, reads them back against their hashes, then the manifest, then the row. On failure the row says why.
    pub async fn write(
        &self,
        label: &Label,
        snapshot: Snapshot,
    ) -> Result<CheckpointRow, CheckpointError> {
        todo!("{label:?} {snapshot:?}")
    }
    /// Reads and verifies everything.
    pub async fn load(&self, id: CheckpointId) -> Result<Snapshot, CheckpointError> {
        todo!("{id}")
    }
    /// Reads and verifies the model only.
    pub async fn load_model(&self, id: CheckpointId) -> Result<Model, CheckpointError> {
        todo!("{id}")
    }
    /// The newest checkpoint that verifies, trying older ones (each refusal logged as an error); rows cut off while `writing` are
    /// marked failed, and complete ones without a row (a kill between manifest and row) get theirs. `None`: there is no checkpoint.
    /// A damaged or missing chain table only is no refusal: the table starts empty, loudly.
    pub async fn newest(&self) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        todo!()
    }
    /// The manifest of a complete checkpoint.
    pub async fn manifest(&self, id: CheckpointId) -> Result<Manifest, CheckpointError> {
        todo!("{id}")
    }
    /// One part's bytes.
    pub async fn part(
        &self,
        id: CheckpointId,
        name: &str,
    ) -> Result<bytes::Bytes, CheckpointError> {
        todo!("{id} {name}")
    }
    /// Verifies the model, then makes it live.
    pub async fn promote(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        todo!("{id}")
    }
    /// Removes a checkpoint: manifest first, then parts, then row. The live one is refused.
    pub async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        todo!("{id}")
    }
    /// Deletes what [`Retention`] no longer keeps; answers what went.
    pub async fn prune(&self, retention: &Retention) -> Result<Vec<CheckpointId>, CheckpointError> {
        todo!("{retention:?}")
    }
}

/// Which checkpoints are kept: always the live one and the newest complete one, besides these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest complete ones that are kept.
    pub keep_latest: usize,
    /// The best ones by held-out recall@1 that are kept.
    pub keep_best: usize,
}

/// A model judged on held-out pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Pairs used: anchors that have a positive. The geometry takes the first positive of each.
    pub pairs: usize,
    /// Anchor images as queries, positives as gallery.
    pub anchor_to_positive: Retrieval,
    /// The other direction.
    pub positive_to_anchor: Retrieval,
    /// Shape of the embeddings.
    pub geometry: Geometry,
}

/// Images to judge a model with. An anchor and a positive with equal labels are relevant to each other. The two sides may differ in
/// length; a row whose label the other side lacks is in the gallery only, never a query.
#[derive(Clone, Debug, Default)]
pub struct EvaluationSet {
    /// Encoded image files.
    pub anchors: Vec<bytes::Bytes>,
    /// Encoded image files.
    pub positives: Vec<bytes::Bytes>,
    /// One label for each anchor.
    pub anchor_labels: Vec<u64>,
    /// One label for each positive.
    pub positive_labels: Vec<u64>,
}

impl EvaluationSet {
    /// The held-out pairs of the database, at most `max_pairs` (a fixed choice by hash, so that evaluations compare).
    pub async fn held_out(
        blobs: &Blobs,
        db: &Db,
        max_pairs: usize,
    ) -> Result<Self, CheckpointError> {
        todo!("{blobs:?} {db:?} {max_pairs}")
    }
    /// Encodes everything with `model` in small batches (in the current rayon pool) and judges it.
    pub fn judge(
        &self,
        model: &Model,
        device: &Device,
        limits: &Limits,
    ) -> Result<Evaluation, CheckpointError> {
        todo!("{model:?} {device:?} {limits:?}")
    }
}

/// When a candidate may serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// With fewer held-out pairs, recall says too little: only collapse is looked at.
    pub min_pairs: usize,
    /// How far the candidate's mean recall@1 may lie below the live one's, absolute.
    pub tolerance: f64,
    /// Spread below which embeddings count as collapsed (1: uniform sphere, 0: one point) …
    pub collapse_spread: f64,
    /// … when the mean cosine of random pairs is above this, too.
    pub collapse_cosine: f64,
}

/// The gate's decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It may serve.
    Promote,
    /// It is no better: keep serving the live one.
    Refuse(String),
    /// Its embeddings collapsed: the trainer must recover.
    Collapsed(String),
}

/// Decides purely from numbers. `live`: the live model on the same pairs.
pub fn judge(candidate: &Evaluation, live: Option<&Evaluation>, config: &GateConfig) -> Verdict {
    todo!("{candidate:?} {live:?} {config:?}")
}

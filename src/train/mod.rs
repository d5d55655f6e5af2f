//! The background trainer: epochs, loader threads, the step loop, schedule, snapshots, evaluation, gate, recovery.
//! Must never know: serving, HTTP. It meets the serving side only in the database row of the live checkpoint.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    blobs::Blobs,
    checkpoint::{CheckpointError, Checkpoints, GateConfig, Retention},
    db::{CheckpointRow, Db},
    learn::LearnConfig,
    nn::{Device, EncoderConfig, OptimizerConfig},
    pixels::{AugmentConfig, Limits},
    types::CheckpointId,
};

/// Everything the trainer is told (the settings' sections, as `config.rs` puts them together).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// `[training]`.
    pub run: RunConfig,
    /// `[encoder]`.
    pub encoder: EncoderConfig,
    /// `[learning]`.
    pub learn: LearnConfig,
    /// `[optimizer]`.
    pub optimizer: OptimizerConfig,
    /// `[schedule]`.
    pub schedule: ScheduleConfig,
    /// `[augment]`.
    pub augment: AugmentConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[snapshots]`.
    pub snapshots: SnapshotConfig,
    /// `[gate]`.
    pub gate: GateConfig,
    /// `[retention]`.
    pub retention: Retention,
}

/// `[training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Whether the server trains at all.
    pub enabled: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Pairs in a batch.
    pub batch: usize,
    /// Training waits until this many pairs are there.
    pub min_pairs: usize,
    /// Threads of the trainer's pool; 0: one for each core.
    pub threads: usize,
    /// Threads that load and augment images.
    pub loader_threads: usize,
    /// Batches loaded ahead.
    pub prefetch: usize,
    /// Niceness of all training threads (0–19): serving comes first.
    pub nice: i32,
    /// Training stops (serving goes on) after this many skipped steps in a row.
    pub max_skipped: u32,
    /// Training stops at this step; 0: never.
    pub max_steps: u64,
    /// Steps between rows of the training series.
    pub metrics_every: u64,
    /// Longest wait before a failed trainer is started again, in seconds.
    pub max_backoff_seconds: u64,
}

/// `[schedule]`: linear warm-up, then constant or cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Rate after warm-up.
    pub learning_rate: f32,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// What follows.
    pub decay: Decay,
    /// Step at which a cosine reaches `final_rate`; it stays there.
    pub total_steps: u64,
    /// Lowest rate of a cosine.
    pub final_rate: f32,
}

/// What the rate does after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    Constant,
    /// Half a cosine down to `final_rate`.
    Cosine,
}

/// `[snapshots]`: when a snapshot is taken, and what happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Steps between snapshots; 0: none by steps.
    pub every_steps: u64,
    /// Minutes between snapshots; 0: none by time.
    pub every_minutes: f64,
    /// Most held-out pairs an evaluation uses.
    pub evaluation_pairs: usize,
    /// Factor on the learning rate after a recovery from collapse.
    pub recovery_rate: f32,
}

/// What the trainer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainingState {
    /// Steps are made.
    Running,
    /// A caller paused it.
    Paused,
    /// It waits for `min_pairs`, or is disabled, or reached `max_steps`; see `waiting_for`.
    Waiting,
    /// It failed; see `last_error`. It retries after a back-off unless the error says not.
    Failed,
}

/// What `GET /v1/training` answers, apart from the checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingStatus {
    /// What it is doing.
    pub state: TrainingState,
    /// What `waiting` waits for.
    pub waiting_for: Option<String>,
    /// Steps done.
    pub step: u64,
    /// Epoch in progress.
    pub epoch: u64,
    /// `emc2 (subset)` …
    pub objective: String,
    /// Smoothed loss.
    pub loss: Option<f32>,
    /// Smoothed estimate of the global loss.
    pub global_loss_estimate: Option<f32>,
    /// Smoothed acceptance rate.
    pub acceptance_rate: Option<f32>,
    /// Chains in the table.
    pub chains: u64,
    /// Pairs trained on.
    pub pairs: u64,
    /// Images trained on.
    pub images: u64,
    /// Steps per second, smoothed.
    pub steps_per_second: f32,
    /// Training images encoded per second, carried negatives included.
    pub images_per_second: f32,
    /// Rate of the last step.
    pub learning_rate: f32,
    /// Steps skipped for a loss or gradient that was not finite.
    pub skipped: u64,
    /// Recoveries from collapse.
    pub recoveries: u64,
    /// The last failure or refusal.
    pub last_error: Option<String>,
    /// The checkpoint that training started or resumed from.
    pub resumed_from: Option<CheckpointId>,
}

/// What can go wrong when the trainer is asked for something.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The trainer is not there any more.
    #[error("the trainer is stopping")]
    Stopped,
    /// A value cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Handle to the trainer; cheap to clone.
#[derive(Clone)]
pub struct Trainer {
    shared: Arc<()>,
}

impl Trainer {
    /// Resumes from the newest complete checkpoint, or starts fresh: writes checkpoint 0 and promotes it. Returns when that is done
    /// (so that serving can start), with the trainer's thread running behind.
    pub async fn start(
        config: TrainConfig,
        device: Device,
        blobs: Blobs,
        db: Db,
        checkpoints: Checkpoints,
    ) -> Result<Self, TrainError> {
        let _ = (device, blobs, db, checkpoints);
        todo!("{config:?}")
    }
    /// What it is doing.
    pub fn status(&self) -> TrainingStatus {
        let _ = &self.shared;
        todo!()
    }
    /// Pauses or resumes; returns once the trainer has taken note (a running step is finished first).
    pub async fn set_paused(&self, paused: bool) -> Result<(), TrainError> {
        todo!("{paused}")
    }
    /// Overrides the schedule's base rate (kept across restarts).
    pub async fn set_learning_rate(&self, rate: f32) -> Result<(), TrainError> {
        todo!("{rate}")
    }
    /// Asks for a snapshot at the next step boundary and returns its id once it is registered as `writing`. Several at once share one
    /// snapshot of the same step.
    pub async fn snapshot(&self, note: Option<String>) -> Result<CheckpointId, TrainError> {
        todo!("{note:?}")
    }
    /// Waits until a snapshot is complete (or failed).
    pub async fn written(&self, id: CheckpointId) -> Result<CheckpointRow, TrainError> {
        todo!("{id}")
    }
    /// Finishes the step, takes a last snapshot if steps were made since the newest, ends all threads.
    pub async fn stop(&self) -> Result<(), TrainError> {
        todo!()
    }
}

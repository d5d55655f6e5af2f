//! The settings of training.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::checkpoint::Policy;
use kith_learn::{LearnConfig, ScheduleConfig};
use kith_nn::{EncoderConfig, OptimizerConfig, Precision};
use kith_pixels::{AugmentConfig, Limits};

/// Everything the trainer is told (the settings' sections, as `config.rs` puts them together).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// `[training]`.
    pub run: RunConfig,
    /// `[encoder]`.
    pub encoder: EncoderConfig,
    /// `encoder.start`.
    pub start: StartWeights,
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
    /// `serving.precision`: what a candidate is judged in.
    pub precision: Precision,
    /// `[snapshots]`.
    pub snapshots: SnapshotConfig,
    /// `[gate]` and `[retention]`.
    pub policy: Policy,
    /// `storage.accept_loss`.
    pub accept_loss: bool,
}

/// The weights of a first checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum StartWeights {
    /// Those that come with the program, if the network has their width; else random ones.
    Starter,
    /// Random ones.
    Fresh,
    /// Those of a file.
    File(PathBuf),
}

impl From<&str> for StartWeights {
    fn from(text: &str) -> Self {
        match text {
            "starter" => Self::Starter,
            "fresh" => Self::Fresh,
            path => Self::File(path.into()),
        }
    }
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
    /// Share of the batches that is for recent pairs, if these are fewer (0–0.9); 0: they are drawn like all others.
    pub recent_share: f64,
    /// Steps for which a pair is recent, at most.
    pub recent_steps: u64,
    /// Training waits until this many pairs are there.
    pub min_pairs: usize,
    /// Threads of the trainer's pool; 0: one for each core.
    pub threads: usize,
    /// Threads that load and augment images ahead of the trainer.
    pub loader_threads: usize,
    /// Batches loaded ahead.
    pub prefetch: usize,
    /// Most MiB of pixels that are kept decoded: a set that fits is decoded once.
    pub cache_mb: usize,
    /// Niceness of all training threads (0–19): serving comes first.
    pub nice: i32,
    /// Whether the threads that compute run in the scheduler's idle class.
    pub idle_class: bool,
    /// Least share of the time that training has, however many requests come (0–1).
    pub min_share: f64,
    /// Training stops (serving goes on) after this many skipped steps in a row.
    pub max_skipped: u32,
    /// Training stops at this step; 0: never.
    pub max_steps: u64,
    /// Steps between rows of the training series.
    pub metrics_every: u64,
    /// Rows that the training series keeps.
    pub metrics_rows: u32,
    /// Longest wait before a failed trainer is started again, in seconds.
    pub max_backoff_seconds: u64,
}

impl RunConfig {
    /// The longest rest after a failure, at least a second.
    pub(super) fn max_rest(&self) -> Duration {
        Duration::from_secs(self.max_backoff_seconds.max(1))
    }
}

/// `[snapshots]`: when a snapshot is taken, and what happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Steps between snapshots; 0: none by steps.
    pub every_steps: u64,
    /// Minutes between snapshots; 0: none by time.
    pub every_minutes: f64,
    /// Steps before the first snapshot of a new model, and before one for many new pairs; 0: both come with the others.
    pub first_steps: u64,
    /// Most trained pairs that the projection of a snapshot is fitted to; 0: it is the one that training ended with.
    pub head_pairs: usize,
    /// Seconds after which no further pairs are read for that.
    pub head_seconds: f64,
    /// Most held-out pairs an evaluation uses.
    pub evaluation_pairs: usize,
    /// Factor on the learning rate after a recovery.
    pub recovery_rate: f32,
    /// Least factor that recoveries leave of the learning rate.
    pub recovery_floor: f32,
    /// Steps after which a lowered rate is raised again by one recovery's factor; 0: never.
    pub recovery_steps: u64,
    /// Recoveries, without a better candidate in between, after which training gives up until a caller resumes it.
    pub max_recoveries: u32,
}

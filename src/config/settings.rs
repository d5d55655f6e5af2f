//! The settings: one struct a section, and what other modules read from them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{GateConfig, Policy, Retention},
    history::HistoryConfig,
    keys::KeysConfig,
    search::SearchConfig,
    serve::ServeConfig,
    telemetry::TracesConfig,
    train::{RunConfig, SnapshotConfig, TrainConfig},
};
use kith_learn::{LearnConfig, ScheduleConfig};
use kith_nn::{CudaConfig, Device, EncoderConfig, NnError, OptimizerConfig, Purpose};
use kith_pixels::{AugmentConfig, Limits};

/// All settings, one field a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[keys]`.
    pub keys: KeysConfig,
    /// `[storage]`.
    pub storage: StorageConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[history]`.
    pub history: HistoryConfig,
    /// `[traces]`.
    pub traces: TracesConfig,
    /// `[encoder]`.
    pub encoder: EncoderSection,
    /// `[cuda]`.
    pub cuda: CudaConfig,
    /// `[serving]`.
    pub serving: ServeConfig,
    /// `[search]`.
    pub search: SearchConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[pairs]`.
    pub pairs: PairsConfig,
    /// `[training]`.
    pub training: RunConfig,
    /// `[learning]`.
    pub learning: LearnConfig,
    /// `[optimizer]`.
    pub optimizer: OptimizerConfig,
    /// `[schedule]`.
    pub schedule: ScheduleConfig,
    /// `[augment]`.
    pub augment: AugmentConfig,
    /// `[snapshots]`.
    pub snapshots: SnapshotConfig,
    /// `[gate]`.
    pub gate: GateConfig,
    /// `[retention]`.
    pub retention: Retention,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: String,
    /// Allow an address that is not loopback although there is no key.
    pub insecure: bool,
    /// Whether `GET /metrics` needs a key with the scope embed, where there are keys.
    pub metrics_key: bool,
    /// Seconds a request may take.
    pub timeout_seconds: u64,
    /// Host names of the server besides loopback's and that of `listen`; `*`: any.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://host`) whose pages may use the server, besides its own.
    pub allowed_origins: Vec<String>,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most requests at once.
    pub max_requests: usize,
    /// Seconds for a request's head to be complete.
    pub header_timeout_seconds: u64,
    /// Seconds that a connection may wait for its next request.
    pub idle_timeout_seconds: u64,
    /// Seconds for the next bytes of a body.
    pub body_timeout_seconds: u64,
    /// Seconds for a client to read more of its answer.
    pub write_timeout_seconds: u64,
    /// Most bytes of a body.
    pub max_body_bytes: usize,
    /// Most bytes of all bodies that are held in memory.
    pub max_buffered_bytes: usize,
    /// Most images in an embedding request.
    pub max_images: usize,
    /// Most pairs in a pair request.
    pub max_pairs: usize,
    /// Most MiB of thumbnails in memory.
    pub thumbnail_cache_mb: u64,
    /// Seconds that stopping may take.
    pub grace_seconds: u64,
}

/// `[storage]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Folder of database, images and checkpoints.
    pub data_dir: PathBuf,
    /// Start although data that the folder held is lost.
    pub accept_loss: bool,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// `[encoder]`: the network's shape, and where it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSection {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// See [`EncoderConfig::width`].
    pub width: usize,
    /// See [`EncoderConfig::side`].
    pub side: usize,
    /// See [`EncoderConfig::dim`].
    pub dim: usize,
    /// See [`EncoderConfig::towers`].
    pub towers: usize,
    /// The first checkpoint's weights: `starter`, `fresh`, or a file.
    pub start: String,
}

/// `[pairs]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsConfig {
    /// Share of pairs that are held out, from 0 to 0.9.
    pub holdout_share: f64,
}

impl Settings {
    /// Opens the device that the encoder runs on.
    pub fn device(&self, purpose: Purpose) -> Result<Device, NnError> {
        Device::open(&self.encoder.device, purpose, &self.cuda)
    }

    /// The share of the time that training has beside requests without end: all of it where the threads of both, those that decode included, have a
    /// core each on a machine of `cores`.
    pub fn background_share(&self, cores: usize) -> f64 {
        let cores_of = |threads| if threads == 0 { cores } else { threads };
        let serving = cores_of(self.serving.threads) + cores_of(self.serving.decode_threads);
        let wanted = serving + cores_of(self.training.threads) + self.training.loader_threads;
        if self.encoder.device == "cpu" && wanted > cores {
            self.training.min_share
        } else {
            1.0
        }
    }

    /// The network's shape.
    pub fn encoder_config(&self) -> EncoderConfig {
        let EncoderSection {
            width,
            side,
            dim,
            towers,
            ..
        } = self.encoder;
        EncoderConfig {
            width,
            side,
            dim,
            towers,
        }
    }

    /// The settings of the trainer.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig {
            run: self.training.clone(),
            encoder: self.encoder_config(),
            start: self.encoder.start.as_str().into(),
            learn: self.learning.clone(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            augment: self.augment.clone(),
            limits: self.limits.clone(),
            precision: self.serving.precision,
            snapshots: self.snapshots.clone(),
            policy: self.policy(),
            accept_loss: self.storage.accept_loss,
        }
    }

    /// The settings of the gate and of retention.
    pub fn policy(&self) -> Policy {
        Policy {
            gate: self.gate.clone(),
            retention: self.retention.clone(),
        }
    }

    /// All settings as a TOML document that [`Settings::load`] reads back unchanged.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are plain tables of numbers and text")
    }
}

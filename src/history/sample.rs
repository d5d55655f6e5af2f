//! A sample, and the settings of the history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Settings of the history: `[history]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// Seconds between samples; 0: none are taken.
    pub every_seconds: u64,
    /// Days for which samples are kept.
    pub days: u32,
}

/// How the server was at a moment, and since the sample before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Sample {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Training steps made.
    pub step: u64,
    /// Requests for embeddings a second.
    pub requests_per_second: f64,
    /// Median of their seconds; null where there was none.
    pub p50_seconds: Option<f64>,
    /// The 99th percentile of their seconds.
    pub p99_seconds: Option<f64>,
    /// Images that waited for the encoder.
    pub waiting_images: usize,
    /// Share of the time that training paused for requests.
    pub paused_share: f64,
    /// Share of carried negatives among the images of a step.
    pub carried_share: Option<f32>,
    /// Mean age of the visited chains' states in steps.
    pub chain_age: Option<f32>,
    /// Pairs that are trained on.
    pub pairs: u64,
    /// Stored images.
    pub images: u64,
    /// Resident memory of the process in bytes; null where the system does not say.
    pub memory_bytes: Option<u64>,
    /// Bytes that may still be written to the disk of the data folder.
    pub disk_free_bytes: Option<u64>,
    /// Size of that disk in bytes.
    pub disk_bytes: Option<u64>,
}

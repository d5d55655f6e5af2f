//! Settings of search: `[search]`.

use serde::{Deserialize, Serialize};

/// Settings of search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchConfig {
    /// Whether stored images are embedded and can be searched.
    pub enabled: bool,
    /// Checkpoints whose vectors are kept besides the live one.
    pub checkpoints: usize,
    /// Most images that are searched, for each checkpoint.
    pub max_images: usize,
    /// Most vectors that are scanned; more are put into a graph.
    pub max_scanned: usize,
    /// Share of the time that embedding stored images may take, above 0.
    pub background_share: f64,
    /// Most searches that are answered or wait; beyond it they are refused (429).
    pub queue_requests: usize,
}

//! Settings of serving: `[serving]`.

use serde::{Deserialize, Serialize};

use kith_nn::Precision;

/// Settings of serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Threads of the encoder's pool; 0: one for each core.
    pub threads: usize,
    /// Threads that decode images; 0: one for each core.
    pub decode_threads: usize,
    /// Images accepted and not yet answered; beyond it requests are refused (429).
    pub queue_images: usize,
    /// Milliseconds that a request of few images may wait for those before it, as far as can be foreseen; beyond it such requests are refused
    /// (429). 0: no bound.
    pub max_wait_ms: u64,
    /// How the encoder reads its weights.
    pub precision: Precision,
    /// Most images encoded in one pass.
    pub max_batch: usize,
    /// Pinned checkpoints (`kith@ID`) kept in memory besides the live one.
    pub pinned: usize,
    /// MiB of vectors that are kept for images that come again; 0: none.
    pub cache_mb: u64,
    /// Milliseconds between reads of the live row.
    pub follow_ms: u64,
}

//! What serving counts: the times of an image's stages, the sizes of passes, and how often the cache helped.

use crate::telemetry::{Counter, Histogram, Metrics, series};

/// Handles to the series of serving; cheap to clone.
#[derive(Clone)]
pub(super) struct Instruments {
    pub(super) decode_queue: Histogram,
    pub(super) decode: Histogram,
    pub(super) encode_queue: Histogram,
    pub(super) encode: Histogram,
    pub(super) batch: Histogram,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
}

impl Instruments {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let bare = |series| metrics.histogram(series, Vec::new());
        let queue = |stage: &str| {
            metrics.histogram(&series::SERVING_QUEUE, vec![("stage", stage.to_owned())])
        };
        Self {
            decode_queue: queue("decode"),
            decode: bare(&series::SERVING_DECODE),
            encode_queue: queue("encode"),
            encode: bare(&series::SERVING_ENCODE),
            batch: bare(&series::SERVING_BATCH),
            cache_hits: metrics.counter(&series::CACHE_HITS, Vec::new()),
            cache_misses: metrics.counter(&series::CACHE_MISSES, Vec::new()),
        }
    }
}

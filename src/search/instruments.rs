//! What search counts.

use crate::telemetry::{Counter, Histogram, Metrics, series};

/// Handles to the series of search.
pub(super) struct Instruments {
    pub(super) seconds: Histogram,
    pub(super) embedded: Counter,
}

impl Instruments {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.histogram(&series::SEARCH_SECONDS, Vec::new()),
            embedded: metrics.counter(&series::SEARCH_EMBEDDED, Vec::new()),
        }
    }
}

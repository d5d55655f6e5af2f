//! A stage of a request's work, such as the decoding of an image: its time goes into a histogram, and where traces are on it is a span.

use std::time::Instant;

use tracing::Span;

use super::Histogram;

/// A stage that has begun; it ends when this is dropped.
pub struct Stage {
    seconds: Histogram,
    started: Instant,
    /// Ends with it.
    _span: Span,
}

impl Stage {
    /// Begins now; its time goes into `seconds`.
    pub fn begin(seconds: &Histogram, span: Span) -> Self {
        Self {
            seconds: seconds.clone(),
            started: Instant::now(),
            _span: span,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.seconds.record(self.started.elapsed().as_secs_f64());
    }
}

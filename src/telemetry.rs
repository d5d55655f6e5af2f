//! Logs: one subscriber for the process, on standard error, as text or as JSON lines.
//! [`LogThrottle`] keeps a failure that repeats from filling the log. [`Metrics`] are the series that Prometheus reads.

mod recorder;
pub mod series;
mod stage;

pub use recorder::{Counter, Gauge, Histogram, Metrics};
pub use series::Series;
pub use stage::Stage;

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging to standard error; `json`: one object a line. A second call changes nothing.
/// A `filter` that does not parse is the error.
pub fn start(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("log.filter \"{filter}\" is not a filter ({error}): try info, or kith=debug")
    })?;
    // Colours would be noise in a file or a journal.
    let colours = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let layer = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.boxed()
    };
    // Fails only when a subscriber is there already: the first one stays.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    Ok(())
}

/// Shortest time between two log lines about the same failure.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits how often a failure that repeats is logged, and counts the lines that were left out.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When a line was last allowed, and how many were left out since.
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogThrottle {
    /// Whether a line may be logged now, at most one every ten seconds: `Some` holds the number of lines left out since the last.
    pub fn ready(&self) -> Option<u64> {
        self.ready_at(Instant::now())
    }

    fn ready_at(&self, now: Instant) -> Option<u64> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now < last + INTERVAL) {
            state.1 += 1;
            return None;
        }
        let left_out = state.1;
        *state = (Some(now), 0);
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_logged_every_ten_seconds_with_the_number_left_out() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(throttle.ready_at(start), Some(0));
        for second in 1..10 {
            assert_eq!(throttle.ready_at(start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.ready_at(start + INTERVAL), Some(9));
        assert_eq!(throttle.ready_at(start + INTERVAL), None);
    }
}

//! Keeps a failure that repeats from filling the log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

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

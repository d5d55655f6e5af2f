//! The rests between attempts to train.

use std::time::Duration;

/// The first rest.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Steps after which a failure counts as over.
const GOOD_STEPS: u64 = 100;

/// Rests that double from one second up to a longest one, and start anew after enough good steps.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
    /// Steps since the last failure.
    good: u64,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self {
            next: FIRST_REST.min(max),
            max,
            good: 0,
        }
    }

    /// Rests of `rest` each, for tests.
    #[cfg(test)]
    pub(super) fn with_first(rest: Duration) -> Self {
        Self {
            next: rest,
            ..Self::new(rest)
        }
    }

    /// The rest after another failure.
    pub(super) fn next_rest(&mut self) -> Duration {
        let rest = self.next;
        self.next = (2 * rest).min(self.max);
        self.good = 0;
        rest
    }

    /// Counts `steps` good steps. After enough of them the next rest is the first one again.
    pub(super) fn record_steps(&mut self, steps: u64) {
        self.good += steps;
        if self.good >= GOOD_STEPS {
            self.next = FIRST_REST.min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_the_longest_and_start_anew_after_good_steps() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let rests: Vec<u64> = (0..5).map(|_| backoff.next_rest().as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 5, 5]);
        backoff.record_steps(99);
        assert_eq!(backoff.next_rest().as_secs(), 5);
        backoff.record_steps(100);
        assert_eq!(backoff.next_rest().as_secs(), 1);
    }
}

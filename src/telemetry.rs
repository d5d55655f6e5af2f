//! Logs: one subscriber for the process, on standard error, as text or as JSON lines.
//! [`Seldom`] keeps a failure that repeats from filling them.

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
    let layer = match json {
        true => lines.json().flatten_event(true).boxed(),
        false => lines.boxed(),
    };
    // Fails only when a subscriber is there already: the first one stays.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    Ok(())
}

/// Least time between two lines about the same trouble.
const QUIET: Duration = Duration::from_secs(10);

/// Says when a line about trouble that repeats is due, and how many were left out since the last.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When a line was last due, and how many were not since.
    state: Mutex<(Option<Instant>, u64)>,
}

impl Seldom {
    /// `Some` of the number of lines left out when one is due now, at most every ten seconds.
    pub fn now(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now < last + QUIET) {
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
    fn trouble_that_repeats_is_told_once_in_a_while_with_what_was_left_out() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.at(start), Some(0));
        for second in 1..10 {
            assert_eq!(seldom.at(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.at(start + QUIET), Some(9));
        assert_eq!(seldom.at(start + QUIET), None);
    }
}

//! Logs: one subscriber for the process, on standard error, as text or as JSON lines.
//! Must never know: any room.

use std::io::IsTerminal;

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

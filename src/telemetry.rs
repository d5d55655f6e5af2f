//! Logs: one subscriber for the process, on standard error, as text or as JSON lines.
//! [`LogThrottle`] keeps a failure that repeats from filling the log. [`Metrics`] are the series that Prometheus reads, [`traces`] what a collector gets.

mod recorder;
pub mod series;
mod stage;
mod throttle;
pub mod traces;

pub use recorder::{Counter, Gauge, Histogram, Metrics};
pub use series::Series;
pub use stage::Stage;
pub use throttle::LogThrottle;
pub use traces::{Traces, TracesConfig};

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

/// Starts logging to standard error; `json`: one object a line. A second call changes nothing.
/// A `filter` that does not parse is the error.
pub fn start(filter: &str, json: bool) -> Result<(), String> {
    start_with_traces(filter, json, None).map(|_| ())
}

/// [`start`], and the sending of traces where they are configured.
pub fn start_with_traces(
    filter: &str,
    json: bool,
    traces: Option<&TracesConfig>,
) -> Result<Option<Traces>, String> {
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
    // Starting fails only when a subscriber is there already: the first one stays.
    let Some(traces) = traces else {
        let _ = tracing_subscriber::registry()
            .with(layer)
            .with(filter)
            .try_init();
        return Ok(None);
    };
    let traces = Traces::start(traces)?;
    // The filter is the log's alone: a log that shows little must not take spans away.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|found| {
            found.is_span() && [traces::REQUEST, traces::STAGE].contains(&found.target())
        }));
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(spans)
        .try_init();
    Ok(Some(traces))
}

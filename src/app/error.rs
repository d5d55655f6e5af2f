//! Why the server cannot start or stop.

use std::fmt::Display;

/// Why the server cannot start or stop cleanly, in one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Converts an error of a part of the app; the message begins with `what` failed.
pub(super) fn because<E: Display>(what: &'static str) -> impl Fn(E) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

//! The integration tests of `kith-eval`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod eval;
mod evaluation;
mod probes;

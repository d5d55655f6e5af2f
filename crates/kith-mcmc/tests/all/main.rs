//! The integration tests of `kith-mcmc`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod configs;
mod eligible;
mod graph;
mod kernel;
mod stationarity;
mod table;
mod visit;

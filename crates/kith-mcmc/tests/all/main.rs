//! The integration tests of `kith-mcmc`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod eligible;
mod kernel;
mod mcmc;
mod stationarity;

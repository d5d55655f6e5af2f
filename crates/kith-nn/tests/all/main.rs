//! The integration tests of `kith-nn`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod kernels;
mod nn;

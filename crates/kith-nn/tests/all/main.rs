//! The integration tests of `kith-nn`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod encoder;
#[path = "../golden/formula.rs"]
mod formula;
mod kernels;
mod pytorch;
mod support;
mod training;

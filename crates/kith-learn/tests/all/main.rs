//! The integration tests of `kith-learn`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod average;
mod carried;
mod cuda;
mod gradient;
mod learn;
mod normalizers;
mod objectives;
mod tiny;
mod towers;
mod weights;

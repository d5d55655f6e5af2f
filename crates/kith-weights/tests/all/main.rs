//! Tests of `kith-weights`: files of other programs, good, foreign and hostile.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod files;
mod golden;
mod hostile;
mod keys;
mod starter;
mod torchvision;

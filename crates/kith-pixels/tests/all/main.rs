//! The integration tests of `kith-pixels`.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod golden_views;
mod operations;
mod pixel_files;
mod pixel_kinds;
mod pixels;
mod thumbnails;

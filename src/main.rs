//! The `kith` program: parse, start telemetry, dispatch.

fn main() {}

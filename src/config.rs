//! Settings in layers.

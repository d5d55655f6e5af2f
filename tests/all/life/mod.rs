//! The life of a checkpoint as a state machine: each decision by itself, and random histories.

mod decisions;
mod histories;
mod world;

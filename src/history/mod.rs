//! How the server was: samples of its figures at intervals, kept in the database, for the dashboard. Prometheus keeps more, where there is one.

mod latency;
mod sample;
mod sampler;

pub use sample::{HistoryConfig, Sample};
pub use sampler::{History, Sources};

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bootstrap;
mod chain_draws;
mod classification;
mod embedded;
mod error;
mod evaluation;
mod evaluation_set;
mod geometry;
mod labelled;
mod neighbours;
mod paired;
mod probe;
mod retrieval;
mod score;
mod spectrum;
mod uniform_test;
mod vectors;

pub use bootstrap::{BootstrapConfig, PairedDifference};
pub use chain_draws::{ChainDraw, DrawComparison};
pub use classification::{
    Classification, ClassificationConfig, ClassificationReport, ClassificationSet, LabelledImages,
};
pub use error::EvalError;
pub use evaluation::{EvalReport, Evaluation};
pub use evaluation_set::EvaluationSet;
pub use geometry::{
    Geometry, PAIRWISE_ROWS, geometry, geometry_of_each, share_without_direction, spread,
};
pub use labelled::Labelled;
pub use neighbours::neighbour_accuracy;
pub use paired::{Tails, sign_flip};
pub use probe::{ProbeConfig, probe_accuracy};
pub use retrieval::{Retrieval, ranks, retrieval};
pub use score::{Comparison, Score};
pub use uniform_test::{UniformTest, uniform_test};

//! Finds the stored images nearest to an image. Each checkpoint has a space of its own: the vectors of all stored images under it.
//! The spaces are kept up to date in the background, behind requests; every answer comes wholly from one of them.

mod answer;
mod config;
mod error;
mod graphs;
mod handle;
mod instruments;
mod map_progress;
mod maps;
mod plan;
mod query;
mod shared;
mod space;
mod spaces;
mod upkeep;

pub use config::SearchConfig;
pub use error::SearchError;
pub use handle::Search;
pub use maps::{Change, ImageMap};
pub use query::{Answer, Found, Query, Question};
pub use shared::Stores;
pub use spaces::{Coverage, Role, SpaceState};

//! All SQL statements of the server. SQLite (WAL, synchronous FULL) with migrations embedded from `migrations/`.

mod aliases;
mod checkpoint_row;
mod checkpoints;
mod choices;
mod columns;
mod counts;
mod damage;
mod erase;
mod error;
mod handle;
mod history;
mod images;
mod keys;
mod metrics;
mod open;
mod pairs;
mod places;
mod records;
mod reserve;
mod split;
mod vectors;

pub use self::{
    aliases::{Alias, Canary},
    checkpoint_row::{
        CheckpointRole, CheckpointRow, CheckpointStatus, DecidedBy, Decision, Verdict,
    },
    choices::TrainingChoices,
    counts::StoredCounts,
    error::DbError,
    handle::Db,
    places::PlacedImage,
    records::{
        Erasure, ImageRow, KeyRow, NewImage, NewPair, PairKeys, PairRow, Scope, Split, StepMetrics,
    },
    vectors::VectorSpace,
};

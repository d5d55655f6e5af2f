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
mod images;
mod keys;
mod metrics;
mod open;
mod pairs;
mod records;
mod reserve;
mod split;

pub use self::{
    aliases::{Alias, Canary},
    checkpoint_row::{
        CheckpointRole, CheckpointRow, CheckpointStatus, DecidedBy, Decision, Verdict,
    },
    choices::TrainingChoices,
    counts::StoredCounts,
    error::DbError,
    handle::Db,
    records::{
        Erasure, ImageRow, KeyRow, NewImage, NewPair, PairKeys, PairRow, Scope, Split, StepMetrics,
    },
};

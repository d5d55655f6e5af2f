//! Between the columns of the tables and the records of this room: one conversion a record.
//! Must never know: which statement a row came from.

use jiff::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};
use uuid::Uuid;

use super::{DbError, ImageRow, PairKeys, PairRow, Split, StepMetrics};
use crate::types::{CheckpointId, Sha256};
use kith_mcmc::{GroupKey, ImageKey, PairKey};

/// SQLite's integers are signed: steps and sizes stay below 2⁶³.
pub(super) fn integer(value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| corrupt(format!("{value} is too large to store")))
}

pub(super) fn corrupt(what: impl ToString) -> DbError {
    DbError::Corrupt(what.to_string())
}

pub(super) fn sha256(row: &SqliteRow, column: &str) -> Result<Sha256, DbError> {
    digest(row.try_get(column)?)
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<Sha256, DbError> {
    let bytes = bytes.try_into();
    Ok(Sha256::from_bytes(bytes.map_err(|_| {
        corrupt("a SHA-256 does not have 32 bytes")
    })?))
}

pub(super) fn timestamp(row: &SqliteRow, column: &str) -> Result<Timestamp, DbError> {
    row.try_get::<&str, _>(column)?.parse().map_err(corrupt)
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, DbError> {
    Uuid::from_slice(bytes).map_err(corrupt)
}

/// Of a row of the view `image_rows`.
pub(super) fn image(row: &SqliteRow) -> Result<ImageRow, DbError> {
    Ok(ImageRow {
        key: ImageKey(row.try_get("key")?),
        sha256: sha256(row, "sha256")?,
        bytes: row.try_get("bytes")?,
        width: row.try_get("width")?,
        height: row.try_get("height")?,
        format: row.try_get("format")?,
        created_at: timestamp(row, "created_at")?,
        damaged: row.try_get("damaged")?,
    })
}

/// Of a row of the view `pair_rows`.
pub(super) fn pair(row: &SqliteRow) -> Result<PairRow, DbError> {
    Ok(PairRow {
        key: PairKey(row.try_get("key")?),
        id: uuid(row.try_get("id")?)?,
        anchor: sha256(row, "anchor")?,
        positive: sha256(row, "positive")?,
        group: row.try_get("group_name")?,
        split: split(row.try_get("split")?)?,
        created_at: timestamp(row, "created_at")?,
    })
}

/// Of a row of the table `pairs`.
pub(super) fn pair_keys(row: &SqliteRow) -> Result<PairKeys, DbError> {
    Ok(PairKeys {
        pair: PairKey(row.try_get("key")?),
        images: [
            ImageKey(row.try_get("anchor")?),
            ImageKey(row.try_get("positive")?),
        ],
        group: row.try_get::<Option<u32>, _>("group_key")?.map(GroupKey),
        split: split(row.try_get("split")?)?,
    })
}

pub(super) fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Holdout => "holdout",
        Split::Unused => "unused",
    }
}

pub(super) fn split(name: &str) -> Result<Split, DbError> {
    match name {
        "train" => Ok(Split::Train),
        "holdout" => Ok(Split::Holdout),
        "unused" => Ok(Split::Unused),
        other => Err(corrupt(format!("split {other}"))),
    }
}

/// An update that reached no row is about a checkpoint that is not there.
pub(super) fn found(id: CheckpointId, rows: u64) -> Result<(), DbError> {
    if rows == 0 {
        return Err(DbError::MissingCheckpoint(id));
    }
    Ok(())
}

pub(super) fn metrics(row: &SqliteRow) -> Result<StepMetrics, DbError> {
    // SQLite keeps a NaN as NULL.
    let number = |column| {
        let value = row.try_get::<Option<f64>, _>(column)?;
        Ok::<_, DbError>(value.map_or(f32::NAN, |value| value as f32))
    };
    Ok(StepMetrics {
        step: row.try_get("step")?,
        loss: number("loss")?,
        global_loss_estimate: number("global_loss_estimate")?,
        acceptance_rate: number("acceptance_rate")?,
        gradient_norm: number("gradient_norm")?,
        spread: number("spread")?,
        learning_rate: number("learning_rate")?,
        images_per_second: number("images_per_second")?,
        at: timestamp(row, "at")?,
    })
}

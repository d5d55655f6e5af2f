//! How the records of this module are stored in columns: types that are stored as bytes, and one `FromRow` a record.

use std::str::FromStr;

use sqlx::{
    Decode, Encode, FromRow, Row, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    sqlite::{SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo, SqliteValueRef},
};
use uuid::Uuid;

use super::{
    aliases::{Alias, Canary},
    checkpoint_row::CheckpointRow,
    error::DbError,
    records::{Erasure, ImageRow, KeyRow, PairKeys, PairRow, StepMetrics},
};
use crate::types::{CheckpointId, Sha256};
use kith_mcmc::{GroupKey, ImageKey, PairKey, PairWeight};

/// SQLite's integers are signed: steps and sizes stay below 2⁶³.
pub(super) fn integer(value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| DbError::Corrupt(format!("{value} is too large to store")))
}

/// An update that reached no row is about a checkpoint that is not there.
pub(super) fn found(id: CheckpointId, rows: u64) -> Result<(), DbError> {
    if rows == 0 {
        return Err(DbError::MissingCheckpoint(id));
    }
    Ok(())
}

/// Stores a type as a BLOB of `$bytes`, and reads it back by `$from`.
macro_rules! stored_as_bytes {
    ($kind:ty, $bytes:expr, $from:expr) => {
        impl Type<Sqlite> for $kind {
            fn type_info() -> SqliteTypeInfo {
                <[u8] as Type<Sqlite>>::type_info()
            }

            fn compatible(info: &SqliteTypeInfo) -> bool {
                <[u8] as Type<Sqlite>>::compatible(info)
            }
        }

        impl Encode<'_, Sqlite> for $kind {
            fn encode_by_ref(
                &self,
                buffer: &mut SqliteArgumentsBuffer,
            ) -> Result<IsNull, BoxDynError> {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                <&[u8] as Encode<Sqlite>>::encode(bytes(self), buffer)
            }
        }

        impl<'r> Decode<'r, Sqlite> for $kind {
            fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
                let from: fn(&[u8]) -> Result<Self, BoxDynError> = $from;
                from(<&[u8] as Decode<Sqlite>>::decode(value)?)
            }
        }
    };
}

stored_as_bytes!(Sha256, |id| id.as_bytes(), |bytes| {
    let bytes = bytes
        .try_into()
        .map_err(|_| "a SHA-256 does not have 32 bytes")?;
    Ok(Self::from_bytes(bytes))
});
stored_as_bytes!(CheckpointId, |id| id.0.as_bytes(), |bytes| {
    Ok(Self(Uuid::from_slice(bytes)?))
});
stored_as_bytes!(PairId, |id| id.0.as_bytes(), |bytes| {
    Ok(Self(Uuid::from_slice(bytes)?))
});

stored_as_bytes!(KeyId, |id| id.0.as_bytes(), |bytes| {
    Ok(Self(Uuid::from_slice(bytes)?))
});

/// The id of a pair in its column.
pub(super) struct PairId(pub(super) Uuid);

/// The id of an API key in its column.
pub(super) struct KeyId(pub(super) Uuid);

/// Of a row of the view `image_rows`.
impl FromRow<'_, SqliteRow> for ImageRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            key: ImageKey(row.try_get("key")?),
            sha256: row.try_get("sha256")?,
            bytes: row.try_get("bytes")?,
            width: row.try_get("width")?,
            height: row.try_get("height")?,
            format: row.try_get("format")?,
            created_at: parsed(row, "created_at")?,
            damaged: row.try_get("damaged")?,
        })
    }
}

/// Of a row of the view `pair_rows`.
impl FromRow<'_, SqliteRow> for PairRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            key: PairKey(row.try_get("key")?),
            id: row.try_get::<PairId, _>("id")?.0,
            anchor: row.try_get("anchor")?,
            positive: row.try_get("positive")?,
            group: row.try_get("group_name")?,
            weight: weight(row)?,
            split: row.try_get("split")?,
            created_at: parsed(row, "created_at")?,
        })
    }
}

/// Of a row of the table `pairs`.
impl FromRow<'_, SqliteRow> for PairKeys {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            pair: PairKey(row.try_get("key")?),
            images: [
                ImageKey(row.try_get("anchor")?),
                ImageKey(row.try_get("positive")?),
            ],
            group: row.try_get::<Option<u32>, _>("group_key")?.map(GroupKey),
            weight: weight(row)?,
            split: row.try_get("split")?,
            created_at: parsed(row, "created_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Erasure {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            sequence: row.try_get("sequence")?,
            pair: PairKey(row.try_get("pair")?),
        })
    }
}

impl FromRow<'_, SqliteRow> for StepMetrics {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        // SQLite keeps a NaN as NULL.
        let number = |column| -> sqlx::Result<f32> {
            let value = row.try_get::<Option<f64>, _>(column)?;
            Ok(value.map_or(f32::NAN, |value| value as f32))
        };
        Ok(Self {
            step: row.try_get("step")?,
            loss: number("loss")?,
            global_loss_estimate: number("global_loss_estimate")?,
            acceptance_rate: number("acceptance_rate")?,
            gradient_norm: number("gradient_norm")?,
            spread: number("spread")?,
            learning_rate: number("learning_rate")?,
            images_per_second: number("images_per_second")?,
            at: parsed(row, "at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Alias {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            checkpoint: row.try_get("checkpoint")?,
            updated_at: parsed(row, "updated_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Canary {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            checkpoint: row.try_get("checkpoint")?,
            percent: row.try_get("percent")?,
            shadow: row.try_get("shadow")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for KeyRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get::<KeyId, _>("id")?.0,
            name: row.try_get("name")?,
            scope: row.try_get("scope")?,
            sha256: row.try_get("sha256")?,
            created_at: parsed(row, "created_at")?,
            expires_at: optional(row, "expires_at")?,
            revoked_at: optional(row, "revoked_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for CheckpointRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            sequence: row.try_get("sequence")?,
            status: row.try_get("status")?,
            role: row.try_get("role")?,
            step: row.try_get("step")?,
            bytes: row.try_get("bytes")?,
            note: row.try_get("note")?,
            parent: row.try_get("parent")?,
            created_at: parsed(row, "created_at")?,
            evaluation: optional(row, "evaluation")?,
            score: optional(row, "score")?,
            verdict: row.try_get("verdict")?,
            decided_by: row.try_get("decided_by")?,
            decided_at: optional(row, "decided_at")?,
            reason: row.try_get("reason")?,
            kept: row.try_get("kept")?,
            held: row.try_get("held")?,
        })
    }
}

/// The column `weight` of a pair.
fn weight(row: &SqliteRow) -> sqlx::Result<PairWeight> {
    let value: f64 = row.try_get("weight")?;
    PairWeight::new(value).ok_or_else(|| decode_error("weight", "it is out of range"))
}

/// A column of text, parsed.
fn parsed<T: FromStr<Err: Into<BoxDynError>>>(row: &SqliteRow, column: &str) -> sqlx::Result<T> {
    let value = optional(row, column)?;
    value.ok_or_else(|| decode_error(column, "it is NULL"))
}

/// A column of text that may be NULL, parsed.
fn optional<T: FromStr<Err: Into<BoxDynError>>>(
    row: &SqliteRow,
    column: &str,
) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(str::parse)
        .transpose()
        .map_err(|error| decode_error(column, error))
}

fn decode_error(column: &str, source: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }
}

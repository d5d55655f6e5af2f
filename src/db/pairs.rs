//! Statements on pairs and on the log of erased ones. `split.rs` decides what a pair is used for; this file reads what that needs.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    columns::{PairId, integer},
    error::DbError,
    handle::Db,
    images,
    records::{Erasure, NewImage, NewPair, PairKeys, PairRow},
    split::{Relations, position, split_of},
};
use crate::types::Sha256;
use kith_mcmc::{ImageKey, PairKey};

/// Erasures that one statement forgets.
const PRUNE_ROWS: u32 = 4096;

impl Db {
    /// Stores images and pairs in one transaction, all or none. A pair that is there (same two images, either way round) is answered
    /// as it is, with `true` for duplicate; another group or weight than it has is an error. New pairs are split by `holdout_share` (see `split_of` in split.rs).
    pub async fn insert_pairs(
        &self,
        images: &[NewImage],
        pairs: &[NewPair],
        holdout_share: f64,
    ) -> Result<Vec<(PairRow, bool)>, DbError> {
        let mut transaction = self.write().await?;
        let mut known = HashMap::new();
        for image in images {
            let (row, _) = images::insert(&mut transaction, image).await?;
            known.insert(row.sha256, row.key);
        }
        let mut stored = Vec::with_capacity(pairs.len());
        for (index, pair) in pairs.iter().enumerate() {
            let keys = [
                key(&mut transaction, &mut known, pair.anchor).await?,
                key(&mut transaction, &mut known, pair.positive).await?,
            ];
            let row = insert(&mut transaction, pair, keys, holdout_share).await?;
            check_group(index, &row.0, pair)?;
            check_weight(index, &row.0, pair)?;
            stored.push(row);
        }
        transaction.commit().await?;
        Ok(stored)
    }

    /// One pair.
    pub async fn pair(&self, id: Uuid) -> Result<Option<PairRow>, DbError> {
        Ok(sqlx::query_as("SELECT * FROM pair_rows WHERE id = ?")
            .bind(PairId(id))
            .fetch_optional(&self.readers)
            .await?)
    }

    /// A page of pairs with `key > after`, ascending, of one group if given.
    pub async fn pairs_after(
        &self,
        after: PairKey,
        limit: u32,
        group: Option<&str>,
    ) -> Result<Vec<PairRow>, DbError> {
        let page = match group {
            None => sqlx::query_as("SELECT * FROM pair_rows WHERE key > ?1 ORDER BY key LIMIT ?2"),
            Some(_) => sqlx::query_as(
                "SELECT * FROM pair_rows
                 WHERE key > ?1 AND group_key = (SELECT key FROM groups WHERE name = ?3)
                 ORDER BY key LIMIT ?2",
            ),
        };
        let page = page.bind(after.0).bind(limit);
        let page = match group {
            None => page,
            Some(name) => page.bind(name),
        };
        Ok(page.fetch_all(&self.readers).await?)
    }

    /// The same in keys only, for trainer and evaluator (all splits).
    pub async fn pair_keys_after(
        &self,
        after: PairKey,
        limit: u32,
    ) -> Result<Vec<PairKeys>, DbError> {
        let page = sqlx::query_as(
            "SELECT key, anchor, positive, group_key, weight, split, created_at FROM pairs
             WHERE key > ? ORDER BY key LIMIT ?",
        )
        .bind(after.0)
        .bind(limit);
        Ok(page.fetch_all(&self.readers).await?)
    }

    /// Erases a pair (its images stay) and logs it. `false`: there was none.
    pub async fn delete_pair(&self, id: Uuid) -> Result<bool, DbError> {
        let delete = || async {
            // The trigger on pairs writes the log, in the same transaction.
            let deleted = sqlx::query("DELETE FROM pairs WHERE id = ?")
                .bind(PairId(id))
                .execute(&mut *self.writer().await?)
                .await?;
            Ok(deleted.rows_affected() > 0)
        };
        self.erase(delete).await
    }

    /// Erasures after `sequence`, ascending.
    pub async fn erasures_after(&self, sequence: u64, limit: u32) -> Result<Vec<Erasure>, DbError> {
        let page =
            sqlx::query_as("SELECT * FROM erasures WHERE sequence > ? ORDER BY sequence LIMIT ?")
                .bind(integer(sequence)?)
                .bind(limit);
        Ok(page.fetch_all(&self.readers).await?)
    }

    /// Sequence of the newest erasure there ever was, pruned or not; 0: there was none.
    pub async fn last_erasure(&self) -> Result<u64, DbError> {
        let last = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'erasures'");
        let last: Option<i64> = last.fetch_optional(&self.readers).await?;
        Ok(last.map_or(0, i64::cast_unsigned))
    }

    /// Deletes the log of erasures up to and including `sequence`, once its reader has taken them in. Returns how many were deleted.
    pub async fn prune_erasures(&self, sequence: u64) -> Result<u64, DbError> {
        let mut pruned = 0;
        loop {
            // In portions, so that no other writer waits long.
            let portion = sqlx::query(
                "DELETE FROM erasures
                 WHERE sequence IN (SELECT sequence FROM erasures WHERE sequence <= ? ORDER BY sequence LIMIT ?)",
            )
            .bind(integer(sequence)?)
            .bind(PRUNE_ROWS)
            .execute(&mut *self.writer().await?)
            .await?;
            pruned += portion.rows_affected();
            if portion.rows_affected() < PRUNE_ROWS.into() {
                return Ok(pruned);
            }
        }
    }
}

/// A pair that was there keeps its group: its split follows from it, and it may be trained on. Another one is refused.
fn check_group(index: usize, stored: &PairRow, posted: &NewPair) -> Result<(), DbError> {
    match &posted.group {
        Some(group) if stored.group.as_ref() != Some(group) => Err(DbError::OtherGroup {
            index,
            pair: stored.id,
            stored: stored.group.clone(),
            posted: group.clone(),
        }),
        _ => Ok(()),
    }
}

/// A pair that was there keeps its weight, which the trainer has read. Another one is refused.
fn check_weight(index: usize, stored: &PairRow, posted: &NewPair) -> Result<(), DbError> {
    match posted.weight {
        Some(weight) if stored.weight != weight => Err(DbError::OtherWeight {
            index,
            pair: stored.id,
            stored: stored.weight.value(),
            posted: weight.value(),
        }),
        _ => Ok(()),
    }
}

/// The key of a pair's image, looked up once a request.
async fn key(
    transaction: &mut SqliteConnection,
    known: &mut HashMap<Sha256, ImageKey>,
    sha256: Sha256,
) -> Result<ImageKey, DbError> {
    if let Some(key) = known.get(&sha256) {
        return Ok(*key);
    }
    let key = images::key(transaction, sha256).await?;
    let key = key.ok_or(DbError::MissingImage(sha256))?;
    known.insert(sha256, key);
    Ok(key)
}

/// Stores one pair of stored images; `true`: it was there already.
async fn insert(
    transaction: &mut SqliteConnection,
    pair: &NewPair,
    images: [ImageKey; 2],
    holdout_share: f64,
) -> Result<(PairRow, bool), DbError> {
    if let Some(row) = same_images(transaction, images).await? {
        return Ok((row, true));
    }
    let group = match &pair.group {
        Some(name) => Some(group_key(transaction, name).await?),
        None => None,
    };
    let relations = relations(transaction, images, group).await?;
    let position = position([pair.anchor, pair.positive], pair.group.as_deref());
    let split = split_of(relations, position, holdout_share);
    let weight = pair.weight.unwrap_or_default();
    let (id, created_at) = (Uuid::now_v7(), Timestamp::now());
    let key = sqlx::query_scalar(
        "INSERT INTO pairs (id, anchor, positive, group_key, weight, split, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
         RETURNING key",
    )
    .bind(PairId(id))
    .bind(images[0].0)
    .bind(images[1].0)
    .bind(group)
    .bind(weight.value())
    .bind(split)
    .bind(created_at.to_string())
    .fetch_one(transaction)
    .await?;
    let row = PairRow {
        key: PairKey(key),
        id,
        anchor: pair.anchor,
        positive: pair.positive,
        group: pair.group.clone(),
        weight,
        split,
        created_at,
    };
    Ok((row, false))
}

/// The pair of these two images, either way round. The terms are those of the unique index.
async fn same_images(
    transaction: &mut SqliteConnection,
    images: [ImageKey; 2],
) -> Result<Option<PairRow>, DbError> {
    let row = sqlx::query_as(
        "SELECT * FROM pair_rows
         WHERE key = (SELECT key FROM pairs WHERE min(anchor, positive) = ? AND max(anchor, positive) = ?)",
    )
    .bind(images[0].min(images[1]).0)
    .bind(images[0].max(images[1]).0)
    .fetch_optional(transaction);
    Ok(row.await?)
}

/// The key of a group, which is created.
async fn group_key(transaction: &mut SqliteConnection, name: &str) -> Result<u32, DbError> {
    let key = sqlx::query_scalar("SELECT key FROM groups WHERE name = ?")
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await?;
    if let Some(key) = key {
        return Ok(key);
    }
    let key = sqlx::query_scalar("INSERT INTO groups (name) VALUES (?) RETURNING key").bind(name);
    Ok(key.fetch_one(transaction).await?)
}

/// Which uses the images and the group of a new pair already have.
async fn relations(
    transaction: &mut SqliteConnection,
    images: [ImageKey; 2],
    group: Option<u32>,
) -> Result<Relations, DbError> {
    let (trained, held_out) = sqlx::query_as(
        "WITH uses (split) AS (VALUES ('train'), ('holdout')),
         related (split) AS (
             SELECT split FROM uses
             WHERE EXISTS (SELECT 1 FROM pairs WHERE anchor IN (?1, ?2) AND pairs.split = uses.split)
                OR EXISTS (SELECT 1 FROM pairs WHERE positive IN (?1, ?2) AND pairs.split = uses.split)
                OR EXISTS (SELECT 1 FROM pairs WHERE group_key = ?3 AND pairs.split = uses.split)
         )
         SELECT 'train' IN related, 'holdout' IN related",
    )
    .bind(images[0].0)
    .bind(images[1].0)
    .bind(group)
    .fetch_one(transaction)
    .await?;
    Ok(Relations { trained, held_out })
}

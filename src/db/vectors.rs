//! Statements on the embeddings of stored images, one space of them for each checkpoint that is searched.

use std::ops::RangeInclusive;

use super::{error::DbError, handle::Db};
use crate::types::{CheckpointId, Sha256};
use kith_mcmc::ImageKey;

/// Rows that one statement deletes.
const DELETE_ROWS: u32 = 1024;

/// The embeddings of one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorSpace {
    /// Its number, which no other ever has.
    pub number: u32,
    /// The checkpoint that made them.
    pub checkpoint: CheckpointId,
}

impl VectorSpace {
    /// The keys of all its rows.
    pub(super) fn keys(self) -> RangeInclusive<i64> {
        self.key(ImageKey(0))..=self.key(ImageKey(u32::MAX))
    }

    pub(super) fn key(self, image: ImageKey) -> i64 {
        i64::from(self.number) << 32 | i64::from(image.0)
    }
}

impl Db {
    /// The spaces, the oldest first; `dropped`: those that are being deleted.
    pub async fn vector_spaces(&self, dropped: bool) -> Result<Vec<VectorSpace>, DbError> {
        let rows: Vec<(u32, CheckpointId)> = sqlx::query_as(
            "SELECT number, checkpoint FROM vector_spaces WHERE dropped = ? ORDER BY number",
        )
        .bind(dropped)
        .fetch_all(&self.readers)
        .await?;
        let space = |(number, checkpoint)| VectorSpace { number, checkpoint };
        Ok(rows.into_iter().map(space).collect())
    }

    /// The space of a checkpoint, which is made if there is none.
    pub async fn vector_space(&self, checkpoint: CheckpointId) -> Result<VectorSpace, DbError> {
        let number = sqlx::query_scalar(
            // The row is returned whether or not it is new.
            "INSERT INTO vector_spaces (checkpoint) VALUES (?)
             ON CONFLICT (checkpoint) WHERE dropped = 0 DO UPDATE SET checkpoint = checkpoint
             RETURNING number",
        )
        .bind(checkpoint)
        .fetch_one(&mut *self.writer().await?)
        .await?;
        Ok(VectorSpace { number, checkpoint })
    }

    /// Stores embeddings of a space, in one transaction. Returns the images that are still there: only theirs are stored.
    pub async fn insert_vectors(
        &self,
        space: VectorSpace,
        vectors: &[(ImageKey, Vec<f32>)],
    ) -> Result<Vec<ImageKey>, DbError> {
        let mut transaction = self.write().await?;
        let mut stored = Vec::with_capacity(vectors.len());
        for (image, embedding) in vectors {
            let bytes: Vec<u8> = embedding.iter().flat_map(|v| v.to_le_bytes()).collect();
            let inserted = sqlx::query(
                "INSERT OR REPLACE INTO vectors (key, embedding) SELECT ?, ? FROM images WHERE key = ?",
            )
            .bind(space.key(*image))
            .bind(bytes)
            .bind(image.0)
            .execute(&mut *transaction)
            .await?;
            if inserted.rows_affected() > 0 {
                stored.push(*image);
            }
        }
        transaction.commit().await?;
        Ok(stored)
    }

    /// A page of the embeddings of a space, of images with `key > after`, ascending.
    pub async fn vectors_after(
        &self,
        space: VectorSpace,
        after: ImageKey,
        limit: u32,
    ) -> Result<Vec<(ImageKey, Vec<f32>)>, DbError> {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT key, embedding FROM vectors WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
        )
        .bind(space.key(after))
        .bind(space.keys().end())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let vector = |(key, bytes): (i64, Vec<u8>)| {
            let values = bytes.as_chunks::<4>().0.iter();
            let values = values.map(|value| f32::from_le_bytes(*value));
            // The low half of a key is the image's.
            (ImageKey(key as u32), values.collect())
        };
        Ok(rows.into_iter().map(vector).collect())
    }

    /// Marks a space as dropped: its checkpoint has none from now on. [`Db::delete_vector_space`] deletes it.
    pub async fn drop_vector_space(&self, space: VectorSpace) -> Result<(), DbError> {
        sqlx::query("UPDATE vector_spaces SET dropped = 1 WHERE number = ?")
            .bind(space.number)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// Deletes a space with all its rows. One that is cut off by a kill is finished at the next start.
    pub async fn delete_vector_space(&self, space: VectorSpace) -> Result<(), DbError> {
        // In portions, so that no other writer waits long.
        for portion in [
            "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors WHERE key BETWEEN ? AND ? LIMIT ?)",
            "DELETE FROM vector_places WHERE key IN (SELECT key FROM vector_places WHERE key BETWEEN ? AND ? LIMIT ?)",
        ] {
            loop {
                let deleted = sqlx::query(portion)
                    .bind(space.keys().start())
                    .bind(space.keys().end())
                    .bind(DELETE_ROWS)
                    .execute(&mut *self.writer().await?)
                    .await?;
                if deleted.rows_affected() == 0 {
                    break;
                }
            }
        }
        sqlx::query("DELETE FROM vector_spaces WHERE number = ?")
            .bind(space.number)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// The images of the pairs of a group, each once, ascending. None for a group that does not exist.
    pub async fn group_images(&self, group: &str) -> Result<Vec<ImageKey>, DbError> {
        let keys: Vec<u32> = sqlx::query_scalar(
            "WITH members AS (
                 SELECT anchor, positive FROM pairs
                 WHERE group_key = (SELECT key FROM groups WHERE name = ?)
             )
             SELECT anchor FROM members UNION SELECT positive FROM members ORDER BY 1",
        )
        .bind(group)
        .fetch_all(&self.readers)
        .await?;
        Ok(keys.into_iter().map(ImageKey).collect())
    }

    /// Id and group of images by key, in the order asked; `None` for one that is gone. The group is that of the image's first pair that has one.
    pub async fn image_groups(
        &self,
        keys: &[ImageKey],
    ) -> Result<Vec<Option<(Sha256, Option<String>)>>, DbError> {
        let asked =
            serde_json::to_string(keys).map_err(|error| DbError::Corrupt(error.to_string()))?;
        let rows: Vec<(Option<Sha256>, Option<String>)> = sqlx::query_as(
            "SELECT images.sha256,
                    (SELECT name FROM groups WHERE key = coalesce(
                        (SELECT group_key FROM pairs
                         WHERE anchor = images.key AND group_key IS NOT NULL ORDER BY key LIMIT 1),
                        (SELECT group_key FROM pairs
                         WHERE positive = images.key AND group_key IS NOT NULL ORDER BY key LIMIT 1)))
             FROM json_each(?) AS asked LEFT JOIN images ON images.key = asked.value
             ORDER BY asked.key",
        )
        .bind(asked)
        .fetch_all(&self.readers)
        .await?;
        let row = |(id, group): (Option<Sha256>, _)| id.map(|id| (id, group));
        Ok(rows.into_iter().map(row).collect())
    }
}

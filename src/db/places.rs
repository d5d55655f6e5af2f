//! Statements on the places of images on the map of a space.

use super::{error::DbError, handle::Db, vectors::VectorSpace};
use crate::types::Sha256;
use kith_mcmc::ImageKey;

/// An image on a map.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedImage {
    /// Its key.
    pub key: ImageKey,
    /// Its id.
    pub sha256: Sha256,
    /// Its place: across and up.
    pub place: [f32; 2],
    /// The group of its first pair that has one.
    pub group: Option<String>,
}

type Row = (u32, Sha256, f32, f32, Option<String>);

impl Db {
    /// The images on the map of a space, ascending by key.
    pub async fn placed_images(&self, space: VectorSpace) -> Result<Vec<PlacedImage>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT images.key, images.sha256, places.x, places.y,
                    (SELECT name FROM groups WHERE key = coalesce(
                        (SELECT group_key FROM pairs
                         WHERE anchor = images.key AND group_key IS NOT NULL ORDER BY key LIMIT 1),
                        (SELECT group_key FROM pairs
                         WHERE positive = images.key AND group_key IS NOT NULL ORDER BY key LIMIT 1)))
             FROM vector_places AS places JOIN images ON images.key = places.key & 4294967295
             WHERE places.key BETWEEN ? AND ?
             ORDER BY places.key",
        )
        .bind(space.keys().start())
        .bind(space.keys().end())
        .fetch_all(&self.readers)
        .await?;
        let placed = |(key, sha256, x, y, group)| PlacedImage {
            key: ImageKey(key),
            sha256,
            place: [x, y],
            group,
        };
        Ok(rows.into_iter().map(placed).collect())
    }

    /// Replaces the map of a space, as a whole: readers find the one before or this one. An image that is gone meanwhile is left out.
    pub async fn set_places(
        &self,
        space: VectorSpace,
        places: &[(ImageKey, [f32; 2])],
    ) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM vector_places WHERE key BETWEEN ? AND ?")
            .bind(space.keys().start())
            .bind(space.keys().end())
            .execute(&mut *transaction)
            .await?;
        for (image, [x, y]) in places {
            sqlx::query(
                "INSERT INTO vector_places (key, x, y)
                 SELECT ?, ?, ? FROM images
                 WHERE key = ? AND EXISTS (SELECT 1 FROM vector_spaces WHERE number = ?)",
            )
            .bind(space.key(*image))
            .bind(x)
            .bind(y)
            .bind(image.0)
            .bind(space.number)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }
}

//! Statements on images. An image is written after its bytes are durable and erased before they go.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    columns::integer,
    error::DbError,
    handle::Db,
    records::{ImageRow, NewImage},
};
use crate::types::Sha256;
use kith_mcmc::ImageKey;

impl Db {
    /// Stores images; those that are there keep their row. Returns their rows in order; `true`: it is new.
    pub async fn insert_images(
        &self,
        images: &[NewImage],
    ) -> Result<Vec<(ImageRow, bool)>, DbError> {
        let mut transaction = self.write().await?;
        let mut stored = Vec::with_capacity(images.len());
        for image in images {
            stored.push(insert(&mut transaction, image).await?);
        }
        transaction.commit().await?;
        Ok(stored)
    }

    /// One image.
    pub async fn image(&self, sha256: Sha256) -> Result<Option<ImageRow>, DbError> {
        Ok(sqlx::query_as("SELECT * FROM image_rows WHERE sha256 = ?")
            .bind(sha256)
            .fetch_optional(&self.readers)
            .await?)
    }

    /// A page of images with `key > after`, ascending; `damaged`: of those that are, or are not.
    pub async fn images_after(
        &self,
        after: ImageKey,
        limit: u32,
        damaged: Option<bool>,
    ) -> Result<Vec<ImageRow>, DbError> {
        let page = sqlx::query_as(
            "SELECT * FROM image_rows WHERE key > ?1 AND (?3 IS NULL OR damaged = ?3) ORDER BY key LIMIT ?2",
        )
        .bind(after.0)
        .bind(limit)
        .bind(damaged);
        Ok(page.fetch_all(&self.readers).await?)
    }

    /// The ids of images by key, in the order asked; `None` for one that is gone.
    pub async fn image_ids(&self, keys: &[ImageKey]) -> Result<Vec<Option<Sha256>>, DbError> {
        let asked =
            serde_json::to_string(keys).map_err(|error| DbError::Corrupt(error.to_string()))?;
        let ids = sqlx::query_scalar(
            "SELECT images.sha256
             FROM json_each(?) AS asked LEFT JOIN images ON images.key = asked.value
             ORDER BY asked.key",
        )
        .bind(asked);
        Ok(ids.fetch_all(&self.readers).await?)
    }

    /// Erases an image and all its pairs, and logs the pairs as erased. `false`: there was none. Its id is in
    /// [`Db::unlinked_images`] until [`Db::forget_unlinked`].
    pub async fn delete_image(&self, sha256: Sha256) -> Result<bool, DbError> {
        self.erase(|| self.delete_image_rows(sha256)).await
    }

    async fn delete_image_rows(&self, sha256: Sha256) -> Result<bool, DbError> {
        let mut transaction = self.write().await?;
        let Some(key) = key(&mut transaction, sha256).await? else {
            return Ok(false);
        };
        // The trigger on pairs writes the log.
        sqlx::query("DELETE FROM pairs WHERE anchor = ?1 OR positive = ?1")
            .bind(key.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM images WHERE key = ?")
            .bind(key.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO unlinked_images (sha256) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(sha256)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Erased images whose bytes may still be there.
    pub async fn unlinked_images(&self) -> Result<Vec<Sha256>, DbError> {
        let unlinked = sqlx::query_scalar("SELECT sha256 FROM unlinked_images");
        Ok(unlinked.fetch_all(&self.readers).await?)
    }

    /// An erased image's bytes are gone too (or were stored anew).
    pub async fn forget_unlinked(&self, sha256: Sha256) -> Result<(), DbError> {
        let forget = || async {
            sqlx::query("DELETE FROM unlinked_images WHERE sha256 = ?")
                .bind(sha256)
                .execute(&mut *self.writer().await?)
                .await?;
            Ok(())
        };
        self.erase(forget).await?;
        // Removing its bytes freed space.
        self.reserve.refill().await;
        Ok(())
    }

    /// Number of images, in constant time.
    pub async fn count_images(&self) -> Result<u64, DbError> {
        let count = sqlx::query_scalar("SELECT images FROM image_count");
        Ok(count.fetch_one(&self.readers).await?)
    }
}

/// Stores an image within a transaction; `true`: it is new.
pub(super) async fn insert(
    transaction: &mut SqliteConnection,
    image: &NewImage,
) -> Result<(ImageRow, bool), DbError> {
    let inserted = sqlx::query_as(
        "INSERT INTO images (sha256, bytes, width, height, format, created_at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (sha256) DO NOTHING
         RETURNING *, FALSE AS damaged",
    )
    .bind(image.sha256)
    .bind(integer(image.bytes)?)
    .bind(image.width)
    .bind(image.height)
    .bind(&image.format)
    .bind(Timestamp::now().to_string())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(row) = inserted {
        return Ok((row, true));
    }
    // Its bytes were compared with those that came, and written again where they differed.
    sqlx::query("DELETE FROM damaged_images WHERE sha256 = ?")
        .bind(image.sha256)
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query_as("SELECT * FROM image_rows WHERE sha256 = ?").bind(image.sha256);
    Ok((row.fetch_one(transaction).await?, false))
}

/// The key of an image, within a transaction.
pub(super) async fn key(
    transaction: &mut SqliteConnection,
    sha256: Sha256,
) -> Result<Option<ImageKey>, DbError> {
    let key = sqlx::query_scalar("SELECT key FROM images WHERE sha256 = ?")
        .bind(sha256)
        .fetch_optional(transaction)
        .await?;
    Ok(key.map(ImageKey))
}

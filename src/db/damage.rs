//! Statements on the list of damaged images, and checks of the whole file.

use jiff::Timestamp;

use super::{error::DbError, handle::Db};
use crate::types::Sha256;

/// Largest number of broken references that a check of the file reports.
const MAX_COMPLAINTS: u32 = 100;

impl Db {
    /// Lists a stored image as damaged. `true`: it was not listed before.
    pub async fn mark_damaged(&self, sha256: Sha256, what: &str) -> Result<bool, DbError> {
        let listed = sqlx::query(
            "INSERT INTO damaged_images (sha256, what, found_at) SELECT sha256, ?, ? FROM images WHERE sha256 = ?
             ON CONFLICT DO NOTHING",
        )
        .bind(what)
        .bind(Timestamp::now().to_string())
        .bind(sha256)
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(listed.rows_affected() > 0)
    }

    /// Takes an image off the list.
    pub async fn clear_damaged(&self, sha256: Sha256) -> Result<(), DbError> {
        sqlx::query("DELETE FROM damaged_images WHERE sha256 = ?")
            .bind(sha256)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// A page of the list, by id, after `after`.
    pub async fn damaged_images(
        &self,
        after: Option<Sha256>,
        limit: u32,
    ) -> Result<Vec<Sha256>, DbError> {
        let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        let page = sqlx::query_scalar(
            "SELECT sha256 FROM damaged_images WHERE sha256 > ? ORDER BY sha256 LIMIT ?",
        )
        .bind(after)
        .bind(limit);
        Ok(page.fetch_all(&self.readers).await?)
    }

    /// Those of `ids` that no row names.
    pub async fn without_row(&self, ids: &[Sha256]) -> Result<Vec<Sha256>, DbError> {
        let asked: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let asked =
            serde_json::to_string(&asked).map_err(|error| DbError::Corrupt(error.to_string()))?;
        let missing = sqlx::query_scalar(
            "SELECT unhex(asked.value) AS sha256 FROM json_each(?) AS asked
             WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.sha256 = unhex(asked.value))",
        )
        .bind(asked);
        Ok(missing.fetch_all(&self.readers).await?)
    }

    /// Checks every page, index and reference of the file. Empty: all is well.
    pub async fn check(&self) -> Result<Vec<String>, DbError> {
        // It stops by itself after 100 complaints.
        let mut found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check")
            .fetch_all(&self.readers)
            .await?;
        found.retain(|complaint| complaint != "ok");
        let references: Vec<(String, Option<i64>, String)> =
            sqlx::query_as("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT ?")
                .bind(MAX_COMPLAINTS)
                .fetch_all(&self.readers)
                .await?;
        for (table, row, parent) in references {
            found.push(format!(
                "row {row:?} of {table} names a row of {parent} that is not there"
            ));
        }
        if self.reserve.is_misplaced() {
            found.push(
                "reserve, beside it, is not a file: no space is kept for erasures on a full disk"
                    .to_owned(),
            );
        }
        Ok(found)
    }

    /// Writes one small row durably, to find out whether a write is possible.
    pub async fn probe_write(&self) -> Result<(), DbError> {
        sqlx::query("INSERT OR REPLACE INTO write_probe (id, at) VALUES (1, ?)")
            .bind(Timestamp::now().to_string())
            .execute(&mut *self.writer().await?)
            .await?;
        self.reserve.refill().await;
        Ok(())
    }
}

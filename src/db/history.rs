//! Statements on the history of the server.

use super::{error::DbError, handle::Db};

/// Seconds for which all samples are kept.
const WHOLE: i64 = 86_400;
/// Of older ones the first in each range of so many seconds stays.
const RANGE: i64 = 600;

impl Db {
    /// Stores a sample as JSON, and thins what is older than a day. What is older than `days` goes.
    pub async fn insert_history(&self, at: i64, sample: &str, days: u32) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        sqlx::query("INSERT OR REPLACE INTO history (at, sample) VALUES (?, ?)")
            .bind(at)
            .bind(sample)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            // Only the range that has just become old can have more than one.
            "DELETE FROM history
             WHERE at < ?1 AND at >= ?1 - 2 * ?2
               AND at NOT IN (SELECT min(at) FROM history WHERE at < ?1 AND at >= ?1 - 3 * ?2 GROUP BY at / ?2)",
        )
        .bind(at - WHOLE)
        .bind(RANGE)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM history WHERE at < ?")
            .bind(at - i64::from(days) * 86_400)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// The samples from `since` (Unix seconds) on, thinned evenly to at most `limit`, the last one kept.
    pub async fn history_since(&self, since: i64, limit: u32) -> Result<Vec<String>, DbError> {
        let samples = sqlx::query_scalar(
            "WITH samples AS (
                 SELECT *, row_number() OVER (ORDER BY at DESC) - 1 AS from_end, count(*) OVER () AS total
                 FROM history WHERE at >= ?1
             )
             SELECT sample FROM samples WHERE from_end % ((total + ?2 - 1) / ?2) = 0 ORDER BY at",
        )
        .bind(since)
        .bind(limit.max(1));
        Ok(samples.fetch_all(&self.readers).await?)
    }
}

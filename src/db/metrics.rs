//! Statements on the training series, which is thinned as it grows.

use std::sync::atomic::Ordering;

use sqlx::SqliteConnection;

use super::{columns::integer, error::DbError, handle::Db, records::StepMetrics};

/// Rows that are written between two looks at the length of the series.
const LOOK_EVERY: u64 = 512;

impl Db {
    /// Appends to the training series; a row of the same step is replaced (a resumed run writes it again). Now and then the series is
    /// thinned to about `max_rows`.
    pub async fn insert_metrics(
        &self,
        metrics: &[StepMetrics],
        max_rows: u32,
    ) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        for row in metrics {
            sqlx::query(
                "INSERT OR REPLACE INTO step_metrics
                     (step, loss, global_loss_estimate, acceptance_rate, gradient_norm, spread, learning_rate,
                      images_per_second, at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(integer(row.step)?)
            .bind(row.loss)
            .bind(row.global_loss_estimate)
            .bind(row.acceptance_rate)
            .bind(row.gradient_norm)
            .bind(row.spread)
            .bind(row.learning_rate)
            .bind(row.images_per_second)
            .bind(row.at.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        let written = metrics.len() as u64;
        let before = self.fresh_metrics.fetch_add(written, Ordering::Relaxed);
        // The first rows of a process look as well: one that is restarted often must not escape.
        if before == 0 || before / LOOK_EVERY != (before + written) / LOOK_EVERY {
            thin(&mut transaction, max_rows).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Drops the rows after `step`, which training goes on from.
    pub async fn drop_metrics_after(&self, step: u64) -> Result<(), DbError> {
        sqlx::query("DELETE FROM step_metrics WHERE step > ?")
            .bind(integer(step)?)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// The series from step `since` on, thinned evenly to at most `limit` rows, the last one kept.
    pub async fn metrics_since(&self, since: u64, limit: u32) -> Result<Vec<StepMetrics>, DbError> {
        let series = sqlx::query_as(
            "WITH series AS (
                 SELECT *, row_number() OVER (ORDER BY step DESC) - 1 AS from_end, count(*) OVER () AS total
                 FROM step_metrics WHERE step >= ?1
             )
             SELECT * FROM series WHERE from_end % ((total + ?2 - 1) / ?2) = 0 ORDER BY step",
        )
        // A step beyond what the database holds has no rows.
        .bind(i64::try_from(since).unwrap_or(i64::MAX))
        .bind(limit.max(1));
        Ok(series.fetch_all(&self.readers).await?)
    }
}

/// Of a series that is longer than `max_rows` the newest half of that number stays whole. Of the older rows the first in each of at most
/// `max_rows / 4` equal ranges of steps stays. A second call finds nothing to do.
async fn thin(transaction: &mut SqliteConnection, max_rows: u32) -> Result<(), DbError> {
    let (rows, first, recent): (u32, i64, Option<i64>) = sqlx::query_as(
        "SELECT count(*), coalesce(min(step), 0),
                (SELECT step FROM step_metrics ORDER BY step DESC LIMIT 1 OFFSET ? / 2)
         FROM step_metrics",
    )
    .bind(max_rows)
    .fetch_one(&mut *transaction)
    .await?;
    let Some(recent) = recent.filter(|_| rows > max_rows) else {
        return Ok(());
    };
    // Powers of two, so that the ranges of a later call are made of whole ranges of this one and no gap adds up.
    let ranges = u64::from(max_rows / 4).max(1);
    let width = (recent.abs_diff(first) / ranges + 1).next_power_of_two();
    sqlx::query(
        "DELETE FROM step_metrics
         WHERE step <= ? AND step NOT IN (SELECT min(step) FROM step_metrics GROUP BY step / ?)",
    )
    .bind(recent)
    .bind(integer(width)?)
    .execute(transaction)
    .await?;
    Ok(())
}

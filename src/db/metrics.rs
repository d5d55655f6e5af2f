//! Statements on the training series.
//! Must never know: how its numbers come about.

use super::{Db, DbError, StepMetrics, rows};

impl Db {
    /// Appends to the training series; a row of the same step is replaced (a resumed run writes it again).
    pub async fn insert_metrics(&self, metrics: &[StepMetrics]) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        for row in metrics {
            sqlx::query(
                "INSERT OR REPLACE INTO step_metrics
                     (step, loss, global_loss_estimate, acceptance_rate, gradient_norm, spread, learning_rate,
                      images_per_second, at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(rows::integer(row.step)?)
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
        Ok(transaction.commit().await?)
    }

    /// The series from step `since` on, thinned evenly to at most `limit` rows, the last one kept.
    pub async fn metrics_since(&self, since: u64, limit: u32) -> Result<Vec<StepMetrics>, DbError> {
        let series = sqlx::query(
            "WITH series AS (
                 SELECT *, row_number() OVER (ORDER BY step DESC) - 1 AS from_end, count(*) OVER () AS total
                 FROM step_metrics WHERE step >= ?1
             )
             SELECT * FROM series WHERE from_end % ((total + ?2 - 1) / ?2) = 0 ORDER BY step",
        )
        .bind(rows::integer(since)?)
        .bind(limit.max(1))
        .fetch_all(&self.readers)
        .await?;
        series.iter().map(rows::metrics).collect()
    }
}

//! Statements on checkpoints: their state, and which one is live.
//! Must never know: what a checkpoint holds.

use super::{CheckpointRow, Db, DbError, rows};
use crate::types::CheckpointId;

impl Db {
    /// A new row, as given (one that is being written: status `writing`, role `candidate`).
    pub async fn insert_checkpoint(&self, row: &CheckpointRow) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO checkpoints
                 (id, status, role, step, bytes, note, parent, created_at, evaluation, reason)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.id.0.as_bytes()[..])
        .bind(rows::status_name(row.status))
        .bind(rows::role_name(row.role))
        .bind(rows::integer(row.step)?)
        .bind(rows::integer(row.bytes)?)
        .bind(&row.note)
        .bind(row.parent.as_ref().map(|parent| &parent.0.as_bytes()[..]))
        .bind(row.created_at.to_string())
        .bind(row.evaluation.as_ref().map(ToString::to_string))
        .bind(&row.reason)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Marks a checkpoint complete.
    pub async fn complete_checkpoint(&self, id: CheckpointId, bytes: u64) -> Result<(), DbError> {
        let done = sqlx::query(
            "UPDATE checkpoints SET status = 'complete', bytes = ?, reason = NULL WHERE id = ?",
        )
        .bind(rows::integer(bytes)?)
        .bind(&id.0.as_bytes()[..])
        .execute(&self.writer)
        .await?;
        found(id, done.rows_affected())
    }

    /// Marks a checkpoint failed, with the reason. A live one is live no more.
    pub async fn fail_checkpoint(&self, id: CheckpointId, reason: &str) -> Result<(), DbError> {
        let done = sqlx::query(
            "UPDATE checkpoints
             SET status = 'failed', reason = ?, role = CASE role WHEN 'live' THEN 'retired' ELSE role END
             WHERE id = ?",
        )
        .bind(reason)
        .bind(&id.0.as_bytes()[..])
        .execute(&self.writer)
        .await?;
        found(id, done.rows_affected())
    }

    /// Stores the newest evaluation of a checkpoint, and why it was refused if it was.
    pub async fn set_evaluation(
        &self,
        id: CheckpointId,
        evaluation: &serde_json::Value,
        reason: Option<&str>,
    ) -> Result<(), DbError> {
        let done = sqlx::query("UPDATE checkpoints SET evaluation = ?, reason = ? WHERE id = ?")
            .bind(evaluation.to_string())
            .bind(reason)
            .bind(&id.0.as_bytes()[..])
            .execute(&self.writer)
            .await?;
        found(id, done.rows_affected())
    }

    /// In one transaction: the live checkpoint retires, `id` is live. `false`: it is not there or not complete.
    pub async fn promote_checkpoint(&self, id: CheckpointId) -> Result<bool, DbError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE checkpoints SET role = 'retired' WHERE role = 'live'")
            .execute(&mut *transaction)
            .await?;
        let promoted = sqlx::query(
            "UPDATE checkpoints SET role = 'live' WHERE id = ? AND status = 'complete'",
        )
        .bind(&id.0.as_bytes()[..])
        .execute(&mut *transaction)
        .await?;
        if promoted.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The live checkpoint.
    pub async fn live_checkpoint(&self) -> Result<Option<CheckpointRow>, DbError> {
        let row = sqlx::query("SELECT * FROM checkpoints WHERE role = 'live'")
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(rows::checkpoint).transpose()
    }

    /// One checkpoint.
    pub async fn checkpoint(&self, id: CheckpointId) -> Result<Option<CheckpointRow>, DbError> {
        let row = sqlx::query("SELECT * FROM checkpoints WHERE id = ?")
            .bind(&id.0.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(rows::checkpoint).transpose()
    }

    /// All checkpoints, newest first.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointRow>, DbError> {
        let all = sqlx::query("SELECT * FROM checkpoints ORDER BY id DESC")
            .fetch_all(&self.readers)
            .await?;
        all.iter().map(rows::checkpoint).collect()
    }

    /// Removes a row, never the live one's. `false`: there was none to remove.
    pub async fn delete_checkpoint(&self, id: CheckpointId) -> Result<bool, DbError> {
        let deleted = sqlx::query("DELETE FROM checkpoints WHERE id = ? AND role <> 'live'")
            .bind(&id.0.as_bytes()[..])
            .execute(&self.writer)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}

fn found(id: CheckpointId, rows: u64) -> Result<(), DbError> {
    match rows {
        0 => Err(DbError::MissingCheckpoint(id)),
        _ => Ok(()),
    }
}

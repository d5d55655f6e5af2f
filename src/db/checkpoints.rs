//! Statements on checkpoints: their state, and which one is live. Checkpoints are ordered by `sequence`, never by a clock.

use jiff::Timestamp;

use super::{
    checkpoint_row::{CheckpointRow, Decision, Verdict},
    columns::{found, integer},
    error::DbError,
    handle::Db,
};
use crate::types::CheckpointId;

impl Db {
    /// A new row, as given but for its sequence, which is the next one.
    pub async fn insert_checkpoint(&self, row: &CheckpointRow) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO checkpoints (id, status, role, step, bytes, note, parent, created_at, evaluation, reason, kept)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.id)
        .bind(row.status)
        .bind(row.role)
        .bind(integer(row.step)?)
        .bind(integer(row.bytes)?)
        .bind(&row.note)
        .bind(row.parent)
        .bind(row.created_at.to_string())
        .bind(row.evaluation.as_ref().map(ToString::to_string))
        .bind(&row.reason)
        .bind(row.kept)
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(())
    }

    /// Marks a checkpoint complete.
    pub async fn complete_checkpoint(&self, id: CheckpointId, bytes: u64) -> Result<(), DbError> {
        let done = sqlx::query(
            "UPDATE checkpoints SET status = 'complete', bytes = ?, reason = NULL WHERE id = ?",
        )
        .bind(integer(bytes)?)
        .bind(id)
        .execute(&mut *self.writer().await?)
        .await?;
        found(id, done.rows_affected())
    }

    /// Marks a checkpoint failed, with the reason. A live one is live no more.
    pub async fn fail_checkpoint(&self, id: CheckpointId, reason: &str) -> Result<(), DbError> {
        let done = sqlx::query(
            "UPDATE checkpoints
             SET status = 'failed', reason = ?, held = 0, kept = 0,
                 role = CASE role WHEN 'live' THEN 'retired' ELSE role END
             WHERE id = ?",
        )
        .bind(reason)
        .bind(id)
        .execute(&mut *self.writer().await?)
        .await?;
        found(id, done.rows_affected())
    }

    /// Stores the newest evaluation of a checkpoint, with its answers to the held-out questions.
    pub async fn set_evaluation(
        &self,
        id: CheckpointId,
        evaluation: &serde_json::Value,
        score: &serde_json::Value,
    ) -> Result<(), DbError> {
        let done = sqlx::query("UPDATE checkpoints SET evaluation = ?, score = ? WHERE id = ?")
            .bind(evaluation.to_string())
            .bind(score.to_string())
            .bind(id)
            .execute(&mut *self.writer().await?)
            .await?;
        found(id, done.rows_affected())
    }

    /// Stores the verdict on a checkpoint; without a new reason the stored one stays.
    pub async fn set_verdict(
        &self,
        id: CheckpointId,
        verdict: Verdict,
        reason: Option<&str>,
    ) -> Result<(), DbError> {
        let done = sqlx::query(
            "UPDATE checkpoints SET verdict = ?, reason = coalesce(?, reason) WHERE id = ?",
        )
        .bind(verdict)
        .bind(reason)
        .bind(id)
        .execute(&mut *self.writer().await?)
        .await?;
        found(id, done.rows_affected())
    }

    /// In one transaction: the live checkpoint retires, `id` is live, and the decision is stored with it. `false`: it is not there or
    /// not complete.
    pub async fn promote_checkpoint(
        &self,
        id: CheckpointId,
        decision: &Decision,
    ) -> Result<bool, DbError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE checkpoints SET role = 'retired', held = 0 WHERE role = 'live'")
            .execute(&mut *transaction)
            .await?;
        let promoted = sqlx::query(
            "UPDATE checkpoints SET role = 'live', held = ?, decided_by = ?, decided_at = ?, reason = ?
             WHERE id = ? AND status = 'complete'",
        )
        .bind(decision.hold)
        .bind(decision.by)
        .bind(Timestamp::now().to_string())
        .bind(&decision.why)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        if promoted.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The live checkpoint is held no more.
    pub async fn release_checkpoint(&self, why: &str) -> Result<(), DbError> {
        sqlx::query("UPDATE checkpoints SET held = 0, reason = ? WHERE held = 1")
            .bind(why)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// Whether retention leaves a checkpoint alone.
    pub async fn keep_checkpoint(&self, id: CheckpointId, kept: bool) -> Result<(), DbError> {
        let done = sqlx::query("UPDATE checkpoints SET kept = ? WHERE id = ?")
            .bind(kept)
            .bind(id)
            .execute(&mut *self.writer().await?)
            .await?;
        found(id, done.rows_affected())
    }

    /// Replaces a checkpoint's note.
    pub async fn note_checkpoint(
        &self,
        id: CheckpointId,
        note: Option<&str>,
    ) -> Result<(), DbError> {
        let done = sqlx::query("UPDATE checkpoints SET note = ? WHERE id = ?")
            .bind(note)
            .bind(id)
            .execute(&mut *self.writer().await?)
            .await?;
        found(id, done.rows_affected())
    }

    /// The live checkpoint.
    pub async fn live_checkpoint(&self) -> Result<Option<CheckpointRow>, DbError> {
        Ok(
            sqlx::query_as("SELECT * FROM checkpoints WHERE role = 'live'")
                .fetch_optional(&self.readers)
                .await?,
        )
    }

    /// One checkpoint.
    pub async fn checkpoint(&self, id: CheckpointId) -> Result<Option<CheckpointRow>, DbError> {
        Ok(sqlx::query_as("SELECT * FROM checkpoints WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?)
    }

    /// All checkpoints, newest first.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointRow>, DbError> {
        let all = sqlx::query_as("SELECT * FROM checkpoints ORDER BY sequence DESC");
        Ok(all.fetch_all(&self.readers).await?)
    }

    /// Removes a row, never the live one's. `false`: there was none to remove.
    pub async fn delete_checkpoint(&self, id: CheckpointId) -> Result<bool, DbError> {
        let deleted = sqlx::query("DELETE FROM checkpoints WHERE id = ? AND role <> 'live'")
            .bind(id)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}

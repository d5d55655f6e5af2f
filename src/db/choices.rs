//! Statements on what callers chose and restarts keep: names for checkpoints, and choices for the server as a whole.

use jiff::Timestamp;

use super::{error::DbError, handle::Db};
use crate::types::CheckpointId;

/// A name that requests may use for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// What it points to; `None`: whichever is live.
    pub checkpoint: Option<CheckpointId>,
    /// When it was last moved.
    pub updated_at: Timestamp,
}

impl Db {
    /// Points a name at a checkpoint, or at whichever is live.
    pub async fn set_alias(
        &self,
        name: &str,
        checkpoint: Option<CheckpointId>,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO aliases (name, checkpoint, updated_at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET checkpoint = excluded.checkpoint, updated_at = excluded.updated_at",
        )
        .bind(name)
        .bind(checkpoint)
        .bind(Timestamp::now().to_string())
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(())
    }

    /// Removes a name. `false`: there was none.
    pub async fn delete_alias(&self, name: &str) -> Result<bool, DbError> {
        let deleted = sqlx::query("DELETE FROM aliases WHERE name = ?")
            .bind(name)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// All names, in their own order.
    pub async fn aliases(&self) -> Result<Vec<Alias>, DbError> {
        let all = sqlx::query_as("SELECT * FROM aliases ORDER BY name");
        Ok(all.fetch_all(&self.readers).await?)
    }

    /// Whether training is paused until a caller resumes it.
    pub async fn is_training_paused(&self) -> Result<bool, DbError> {
        let paused =
            sqlx::query("SELECT 1 FROM choices WHERE name = 'training' AND value = 'paused'")
                .fetch_optional(&self.readers)
                .await?;
        Ok(paused.is_some())
    }

    /// Pauses or resumes training, beyond restarts.
    pub async fn set_training_paused(&self, paused: bool) -> Result<(), DbError> {
        let value = if paused { "paused" } else { "running" };
        sqlx::query(
            "INSERT INTO choices (name, value) VALUES ('training', ?)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(value)
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(())
    }
}

//! Statements on names for checkpoints, and on candidates that are tried under a name.

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

/// A candidate that is tried under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// The name.
    pub name: String,
    /// The candidate.
    pub checkpoint: CheckpointId,
    /// Share of the name's keys that it answers, or of images that it is compared on.
    pub percent: f64,
    /// Whether it is compared and never answers.
    pub shadow: bool,
}

impl Db {
    /// Points a name at a checkpoint, or at whichever is live, and has `canary` tried under it, or none. A reader sees both as before or as after.
    pub async fn set_alias(
        &self,
        name: &str,
        checkpoint: Option<CheckpointId>,
        canary: Option<&Canary>,
    ) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO aliases (name, checkpoint, updated_at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET checkpoint = excluded.checkpoint, updated_at = excluded.updated_at",
        )
        .bind(name)
        .bind(checkpoint)
        .bind(Timestamp::now().to_string())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM canaries WHERE name = ?")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        if let Some(canary) = canary {
            sqlx::query(
                "INSERT INTO canaries (name, checkpoint, percent, shadow) VALUES (?, ?, ?, ?)",
            )
            .bind(name)
            .bind(canary.checkpoint)
            .bind(canary.percent)
            .bind(canary.shadow)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Removes a name and its canary. `false`: there was none.
    pub async fn delete_alias(&self, name: &str) -> Result<bool, DbError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM canaries WHERE name = ?")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        let deleted = sqlx::query("DELETE FROM aliases WHERE name = ?")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// All names, in their own order.
    pub async fn aliases(&self) -> Result<Vec<Alias>, DbError> {
        let all = sqlx::query_as("SELECT * FROM aliases ORDER BY name");
        Ok(all.fetch_all(&self.readers).await?)
    }

    /// All canaries, in the order of their names.
    pub async fn canaries(&self) -> Result<Vec<Canary>, DbError> {
        let all = sqlx::query_as("SELECT * FROM canaries ORDER BY name");
        Ok(all.fetch_all(&self.readers).await?)
    }
}

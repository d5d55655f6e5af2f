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

/// Names in the table `choices`.
const TRAINING: &str = "training";
const LEARNING_RATE: &str = "learning_rate";
const GIVEN_UP: &str = "given_up";
/// Value of [`TRAINING`].
const PAUSED: &str = "paused";

/// What callers and the trainer have decided about training, beyond restarts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingChoices {
    /// Whether training is paused until a caller resumes it.
    pub paused: bool,
    /// The base learning rate that a caller has set last.
    pub learning_rate: Option<f32>,
    /// Why training gave up, until a caller resumes it.
    pub given_up: Option<String>,
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

    /// What holds for training beyond restarts.
    pub async fn training_choices(&self) -> Result<TrainingChoices, DbError> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT name, value FROM choices")
            .fetch_all(&self.readers)
            .await?;
        let value = |wanted: &str| {
            let mut rows = rows.iter();
            rows.find_map(|(name, value)| (name == wanted).then_some(value))
        };
        Ok(TrainingChoices {
            paused: value(TRAINING).is_some_and(|value| value == PAUSED),
            learning_rate: value(LEARNING_RATE).and_then(|value| value.parse().ok()),
            given_up: value(GIVEN_UP).cloned(),
        })
    }

    /// Pauses or resumes training, beyond restarts.
    pub async fn set_training_paused(&self, paused: bool) -> Result<(), DbError> {
        let value = if paused { PAUSED } else { "running" };
        self.set_choice(TRAINING, value).await
    }

    /// Keeps the base learning rate that a caller has set.
    pub async fn set_learning_rate(&self, rate: f32) -> Result<(), DbError> {
        self.set_choice(LEARNING_RATE, &rate.to_string()).await
    }

    /// Keeps why training gave up; `None`: a caller has resumed it.
    pub async fn set_training_given_up(&self, why: Option<&str>) -> Result<(), DbError> {
        if let Some(why) = why {
            return self.set_choice(GIVEN_UP, why).await;
        }
        sqlx::query("DELETE FROM choices WHERE name = ?")
            .bind(GIVEN_UP)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    async fn set_choice(&self, name: &str, value: &str) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO choices (name, value) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(())
    }
}

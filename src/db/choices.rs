//! Statements on what callers chose for the server as a whole and restarts keep.

use super::{error::DbError, handle::Db};

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

    /// Keeps the base learning rate that a caller has set; `None`: the schedule's holds again.
    pub async fn set_learning_rate(&self, rate: Option<f32>) -> Result<(), DbError> {
        let rate = rate.map(|rate| rate.to_string());
        self.set_or_drop_choice(LEARNING_RATE, rate.as_deref())
            .await
    }

    /// Keeps why training gave up; `None`: a caller has resumed it.
    pub async fn set_training_given_up(&self, why: Option<&str>) -> Result<(), DbError> {
        self.set_or_drop_choice(GIVEN_UP, why).await
    }

    async fn set_or_drop_choice(&self, name: &str, value: Option<&str>) -> Result<(), DbError> {
        if let Some(value) = value {
            return self.set_choice(name, value).await;
        }
        sqlx::query("DELETE FROM choices WHERE name = ?")
            .bind(name)
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

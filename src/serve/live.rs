//! The live encoder, kept in step with the database. Publishing a checkpoint is one pointer store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    ModelInfo, ServeError,
    loaded::{Loaded, Loader},
};
use crate::{
    checkpoint::CheckpointError,
    db::{CheckpointRow, Db},
    events::Kind,
    telemetry::LogThrottle,
    types::CheckpointId,
};

/// How long the follower waits before it loads a checkpoint again that failed to load.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The live encoder, and what is needed to replace it.
pub(super) struct Live {
    current: ArcSwapOption<Loaded>,
    db: Db,
    loader: Loader,
    /// Held while a checkpoint loads, so that the same one is never loaded twice.
    loading: Mutex<Option<Failure>>,
    errors: LogThrottle,
}

/// A checkpoint that did not load, and when.
struct Failure {
    id: CheckpointId,
    at: Instant,
}

impl Live {
    pub(super) fn new(db: Db, loader: Loader) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            db,
            loader,
            loading: Mutex::new(None),
            errors: LogThrottle::default(),
        }
    }

    /// The encoder that serves now. A request keeps the one it got until its answer.
    pub(super) fn current(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    pub(super) fn info(&self) -> Option<ModelInfo> {
        self.current.load().as_ref().map(|loaded| loaded.info)
    }

    /// Reads the live row and returns once its checkpoint serves.
    pub(super) async fn follow(&self) -> Result<(), ServeError> {
        let mut failure = self.loading.lock().await;
        let Some(row) = self.next().await? else {
            return Ok(());
        };
        self.replace(&row, &mut failure).await
    }

    /// As [`Live::follow`], but logs a failure, and does not load a checkpoint again that failed a moment ago.
    pub(super) async fn tick(&self) {
        let mut failure = self.loading.lock().await;
        let followed = match self.next().await {
            Ok(Some(row)) if !failed_recently(failure.as_ref(), row.id) => {
                self.replace(&row, &mut failure).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = followed
            && let Some(left_out) = self.errors.ready()
        {
            tracing::error!(%error, left_out, "the live checkpoint cannot be followed");
        }
    }

    /// The live row, if another checkpoint serves.
    async fn next(&self) -> Result<Option<CheckpointRow>, ServeError> {
        let row = self.db.live_checkpoint().await;
        let row = row.map_err(CheckpointError::from)?;
        Ok(row.filter(|row| self.info().is_none_or(|info| info.id != row.id)))
    }

    /// Loads the checkpoint of `row`, and tells those who watch once it serves.
    async fn replace(
        &self,
        row: &CheckpointRow,
        failure: &mut Option<Failure>,
    ) -> Result<(), ServeError> {
        let id = row.id;
        match self.loader.load(id).await {
            Ok(loaded) => {
                *failure = None;
                tracing::info!(checkpoint = %id, step = loaded.info.step, "serving");
                self.current.store(Some(loaded));
                let data = json!({
                    "checkpoint": id, "step": row.step, "decided_by": row.decided_by, "reason": row.reason, "held": row.held,
                });
                self.loader
                    .checkpoints
                    .events()
                    .publish(Kind::Promotion, data);
                Ok(())
            }
            Err(error) => {
                *failure = Some(Failure {
                    id,
                    at: Instant::now(),
                });
                Err(error)
            }
        }
    }
}

fn failed_recently(failure: Option<&Failure>, id: CheckpointId) -> bool {
    failure.is_some_and(|failure| failure.id == id && failure.at.elapsed() < RETRY_AFTER)
}

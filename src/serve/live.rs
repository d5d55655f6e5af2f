//! The live encoder, and the follower that keeps it what the database says. Publishing is one pointer store.
//! Must never know: requests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::{
    ModelInfo, ServeError,
    loaded::{Loaded, Loader},
};
use crate::{db::Db, telemetry::Seldom, types::CheckpointId};

/// How long the follower leaves a checkpoint alone that did not load.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The live encoder, and what is needed to exchange it.
pub(super) struct Live {
    current: ArcSwapOption<Loaded>,
    db: Db,
    loader: Loader,
    /// Held while a checkpoint loads, so that two looks at the row never load the same one twice.
    turn: Mutex<Option<Failure>>,
    trouble: Seldom,
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
            turn: Mutex::new(None),
            trouble: Seldom::default(),
        }
    }

    /// The encoder that serves at this moment. A request keeps what it got here until its answer.
    pub(super) fn current(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    pub(super) fn info(&self) -> Option<ModelInfo> {
        self.current.load().as_ref().map(|loaded| loaded.info)
    }

    /// Looks at the live row and returns once what it names serves.
    pub(super) async fn follow(&self) -> Result<(), ServeError> {
        let mut turn = self.turn.lock().await;
        let Some(wanted) = self.wanted().await? else {
            return Ok(());
        };
        self.exchange(wanted, &mut turn).await
    }

    /// As [`Live::follow`], but a failure is logged here, and a checkpoint that failed a moment ago is not tried again yet.
    pub(super) async fn tick(&self) {
        let mut turn = self.turn.lock().await;
        let followed = match self.wanted().await {
            Ok(Some(id)) if !recent(turn.as_ref(), id) => self.exchange(id, &mut turn).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = followed
            && let Some(left_out) = self.trouble.now()
        {
            tracing::error!(%error, left_out, "the live checkpoint cannot be followed");
        }
    }

    /// The live row's checkpoint, if it is not the one that serves.
    async fn wanted(&self) -> Result<Option<CheckpointId>, ServeError> {
        let row = self.db.live_checkpoint().await;
        let id = row
            .map_err(crate::checkpoint::CheckpointError::from)?
            .map(|row| row.id);
        Ok(id.filter(|id| self.info().is_none_or(|info| info.id != *id)))
    }

    async fn exchange(
        &self,
        id: CheckpointId,
        failure: &mut Option<Failure>,
    ) -> Result<(), ServeError> {
        match self.loader.load(id).await {
            Ok(loaded) => {
                *failure = None;
                tracing::info!(checkpoint = %id, step = loaded.info.step, "serving");
                self.current.store(Some(loaded));
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

fn recent(failure: Option<&Failure>, id: CheckpointId) -> bool {
    failure.is_some_and(|failure| failure.id == id && failure.at.elapsed() < RETRY_AFTER)
}

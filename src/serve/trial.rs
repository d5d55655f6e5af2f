//! Candidates on trial, as serving's callers see them.

use bytes::Bytes;
use uuid::Uuid;

use super::{Comparison, Embedded, Priority, ServeError, Serving, Which};
use crate::{checkpoint::CheckpointError, types::CheckpointId};

impl Serving {
    /// Reads now which candidates are on trial (after a change), whatever the live checkpoint is like.
    ///
    /// # Errors
    /// [`ServeError::Checkpoint`] if the database cannot be read.
    pub async fn follow_trials(&self) -> Result<(), ServeError> {
        let followed = self.shared.canaries.follow().await;
        Ok(followed.map_err(CheckpointError::from)?)
    }

    /// The candidate that answers the holder of `key` under the name `model`, if one is tried on it.
    pub fn canary(&self, model: &str, key: Option<Uuid>) -> Option<CheckpointId> {
        self.shared.canaries.answering(model, key)
    }

    /// Compares what was answered under the name `model` with its shadow, if it has one, in the background and behind all requests.
    pub fn shadow(&self, model: &str, image: &Bytes, own: &Embedded) {
        let [row] = &own.rows[..] else { return };
        let Some((candidate, permit)) = self.shared.canaries.shadowing(model, image) else {
            return;
        };
        let own = Embedded {
            model: own.model,
            side: own.side,
            rows: vec![row.clone()],
        };
        let (serving, model, image) = (self.clone(), model.to_owned(), image.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let which = (Which::Pinned(candidate), own.side);
            match serving
                .embed(which, vec![image], Some(Priority::Bulk))
                .await
            {
                Ok(candidate) => serving.shared.canaries.compare(&model, &own, &candidate),
                // There is more to do than comparing.
                Err(ServeError::Overloaded | ServeError::LongWait | ServeError::Stopping) => {}
                Err(error) => tracing::warn!(model, %error, "a shadow cannot be compared"),
            }
        });
    }

    /// How the shadow of the name `model` compared so far.
    pub fn comparison(&self, model: &str) -> Comparison {
        self.shared.canaries.comparison(model)
    }
}

//! Opens the checkpoints at a start: removes what a kill left, and chooses the newest checkpoint that loads.

use std::collections::HashMap;

use super::{CheckpointError, Checkpoints, Label, Manifest, Snapshot, store::new_row};
use crate::{
    db::{CheckpointRow, CheckpointStatus},
    types::CheckpointId,
};

impl Checkpoints {
    /// The newest checkpoint whose weights verify, trying older ones (each refusal logged as an error); rows cut off while `writing` are
    /// marked failed, and complete ones without a row (a kill between manifest and row) get theirs. `None`: there is none yet.
    /// Damaged parts other than the weights are no refusal: see [`Checkpoints::load`]. One that is made for images prepared otherwise is not passed
    /// over: training would silently go on from an older state.
    ///
    /// For a start only: whatever is being written meanwhile would be taken for cut off.
    ///
    /// # Errors
    /// [`CheckpointError::AllLost`] where there are complete checkpoints and none can be read; [`CheckpointError::Preprocessing`].
    pub async fn newest(&self) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        self.tidy().await?;
        let ids = self.complete_ids().await?;
        let passes_over = |error: &CheckpointError| {
            is_lost(error) && !matches!(error, CheckpointError::Preprocessing { .. })
        };
        match self.first(&ids, passes_over).await? {
            None if !ids.is_empty() => Err(CheckpointError::AllLost {
                complete: ids.len(),
            }),
            found => Ok(found),
        }
    }

    /// The ids of all complete checkpoints, newest first.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the database cannot be read.
    pub async fn complete_ids(&self) -> Result<Vec<CheckpointId>, CheckpointError> {
        let mut rows = self.db.checkpoints().await?;
        rows.retain(|row| row.status == CheckpointStatus::Complete);
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// The first of `ids` that loads; each refusal is logged as an error.
    ///
    /// # Errors
    /// A failure of a store, which says nothing about the checkpoints.
    pub async fn first_of(
        &self,
        ids: &[CheckpointId],
    ) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        self.first(ids, is_lost).await
    }

    async fn first(
        &self,
        ids: &[CheckpointId],
        passes_over: impl Fn(&CheckpointError) -> bool,
    ) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        for id in ids {
            match self.load(*id).await {
                Ok(snapshot) => return Ok(Some((*id, snapshot))),
                Err(error) if passes_over(&error) => {
                    tracing::error!(checkpoint = %id, %error, "a checkpoint is passed over");
                }
                // A store that fails for the moment says nothing about the checkpoint.
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Brings rows and files into agreement after a kill.
    async fn tidy(&self) -> Result<(), CheckpointError> {
        let rows: HashMap<CheckpointId, CheckpointRow> = self
            .db
            .checkpoints()
            .await?
            .into_iter()
            .map(|row| (row.id, row))
            .collect();
        let stored = self.blobs.checkpoint_ids().await?;
        let without_files = rows
            .values()
            .filter(|row| row.status == CheckpointStatus::Writing && !stored.contains(&row.id));
        for row in without_files {
            self.cut_off(row.id).await?;
        }
        let mut without_row = Vec::new();
        for id in stored {
            match rows.get(&id).map(|row| row.status) {
                Some(CheckpointStatus::Complete) => {}
                Some(CheckpointStatus::Failed) => self.remove_files(id).await?,
                Some(CheckpointStatus::Writing) => match self.manifest_or_leftovers(id).await? {
                    Some(manifest) => self.restore(&manifest).await?,
                    None => self.cut_off(id).await?,
                },
                None => without_row.extend(self.manifest_or_leftovers(id).await?),
            }
        }
        without_row.sort_by_key(|manifest| (manifest.sequence, manifest.step, manifest.id));
        for manifest in without_row {
            let label = Label {
                id: manifest.id,
                note: manifest.note.clone(),
                parent: manifest.parent,
                kept: manifest.note.is_some(),
            };
            let row = new_row(&label, manifest.step, manifest.created_at);
            self.db.insert_checkpoint(&row).await?;
            self.restore(&manifest).await?;
        }
        Ok(())
    }

    /// The manifest of a checkpoint whose row was not completed: with it the checkpoint exists (whether it verifies is seen when it is
    /// loaded); without it what is left of it goes.
    async fn manifest_or_leftovers(
        &self,
        id: CheckpointId,
    ) -> Result<Option<Manifest>, CheckpointError> {
        match self.stored_manifest(id).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(CheckpointError::Damaged { what, .. }) => {
                tracing::warn!(checkpoint = %id, what, "leftovers of a checkpoint that was never complete are removed");
                self.remove_files(id).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn restore(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let bytes = manifest.bytes();
        self.db.complete_checkpoint(manifest.id, bytes).await?;
        tracing::info!(checkpoint = %manifest.id, step = manifest.step, "the row of a complete checkpoint is restored");
        Ok(())
    }

    async fn cut_off(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        tracing::warn!(checkpoint = %id, "the writing of this checkpoint was cut off");
        self.abandon(id, "the server stopped before it was written")
            .await
    }
}

/// Whether a checkpoint cannot be loaded now or later.
fn is_lost(error: &CheckpointError) -> bool {
    error.unusable().is_some() || matches!(error, CheckpointError::Unknown(_))
}

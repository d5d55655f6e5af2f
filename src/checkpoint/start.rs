//! What a start finds: leftovers of a kill are tidied up, and the newest checkpoint that verifies is chosen.
//! Must never know: what is done with it.

use std::collections::HashMap;

use super::{CheckpointError, Checkpoints, Label, Snapshot, store::new_row};
use crate::{
    db::{CheckpointRow, CheckpointStatus},
    types::CheckpointId,
};

impl Checkpoints {
    /// The newest checkpoint that verifies, trying older ones (each refusal logged as an error); rows cut off while `writing` are
    /// marked failed, and complete ones without a row (a kill between manifest and row) get theirs. `None`: there is no checkpoint
    /// that can be read. A damaged or missing chain table only is no refusal: see [`Checkpoints::load`].
    ///
    /// For a start only: whatever is being written meanwhile would be taken for cut off.
    pub async fn newest(&self) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        self.tidy().await?;
        self.newest_where(|_| true).await
    }

    /// The newest complete checkpoint that verifies among those whose row is `wanted`; each refusal is logged as an error.
    pub async fn newest_where(
        &self,
        wanted: impl Fn(&CheckpointRow) -> bool,
    ) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
        let mut rows = self.db.checkpoints().await?;
        rows.retain(|row| row.status == CheckpointStatus::Complete && wanted(row));
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        for row in rows {
            match self.load(row.id).await {
                Ok(snapshot) => return Ok(Some((row.id, snapshot))),
                Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::Blobs(_))) => {
                    tracing::error!(checkpoint = %row.id, step = row.step, %error, "a damaged checkpoint is passed over");
                }
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
        for id in stored {
            match rows.get(&id).map(|row| row.status) {
                Some(CheckpointStatus::Complete) => {}
                Some(CheckpointStatus::Failed) => self.remove_files(id).await?,
                Some(CheckpointStatus::Writing) => self.finish(id, true).await?,
                None => self.finish(id, false).await?,
            }
        }
        Ok(())
    }

    /// A checkpoint whose row was not completed: if its manifest can be read it exists (whether it verifies is seen when it is loaded);
    /// otherwise its leftovers go.
    async fn finish(&self, id: CheckpointId, has_row: bool) -> Result<(), CheckpointError> {
        let manifest = match self.stored_manifest(id).await {
            Ok(manifest) => manifest,
            Err(CheckpointError::Damaged { .. }) if has_row => return self.cut_off(id).await,
            Err(CheckpointError::Damaged { what, .. }) => {
                tracing::warn!(checkpoint = %id, what, "leftovers of a checkpoint that was never complete are removed");
                return self.remove_files(id).await;
            }
            Err(error) => return Err(error),
        };
        if !has_row {
            let label = Label {
                id,
                note: manifest.note.clone(),
                parent: manifest.parent,
            };
            let row = new_row(&label, manifest.step, manifest.created_at);
            self.db.insert_checkpoint(&row).await?;
        }
        self.db.complete_checkpoint(id, manifest.bytes()).await?;
        tracing::info!(checkpoint = %id, step = manifest.step, "the row of a complete checkpoint is restored");
        Ok(())
    }

    async fn cut_off(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        tracing::warn!(checkpoint = %id, "the writing of this checkpoint was cut off");
        self.abandon(id, "the server stopped before it was written")
            .await
    }
}

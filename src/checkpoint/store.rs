//! The handle to the checkpoints of a data folder; it writes them and removes their files.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::{
    CheckpointError, Label, Manifest, Part, Policy, Snapshot,
    files::{CHAINS, FORMAT, FileError, MANIFEST, MODEL, OPTIMIZER, PARTS, TRAINER},
    preprocessing_hash,
    usage::Usage,
};
use crate::{
    blobs::{BlobKey, Blobs},
    db::{CheckpointRow, CheckpointStatus, Db},
    events::{Events, Kind},
    types::CheckpointId,
};
use kith_pixels::Preprocessing;

/// The checkpoints of a data folder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(super) blobs: Blobs,
    pub(super) db: Db,
    /// Decisions exclude each other: what one was taken on must hold until it is carried out.
    pub(super) roles: Arc<tokio::sync::Mutex<()>>,
    pub(super) usage: Usage,
    pub(super) policy: Arc<Policy>,
    pub(super) events: Events,
}

impl Checkpoints {
    /// A handle; decisions follow `policy`.
    pub fn new(blobs: Blobs, db: Db, policy: Policy) -> Self {
        Self {
            blobs,
            db,
            roles: Arc::default(),
            usage: Usage::default(),
            policy: Arc::new(policy),
            events: Events::default(),
        }
    }

    /// The same checkpoints, which tell `events` what happens to them.
    pub fn with_events(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// Where it is told what happens to checkpoints.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Tells of a checkpoint that is written, complete or failed.
    fn tell(&self, label: &Label, status: CheckpointStatus, reason: Option<&str>) {
        let data =
            json!({"checkpoint": label.id, "status": status, "note": label.note, "reason": reason});
        self.events.publish(Kind::Checkpoint, data);
    }

    /// Registers a snapshot as `writing`, so that it has an id to answer with.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the row cannot be written.
    pub async fn begin(&self, label: &Label, step: u64) -> Result<(), CheckpointError> {
        let row = new_row(label, step, Timestamp::now());
        self.db.insert_checkpoint(&row).await?;
        self.tell(label, CheckpointStatus::Writing, None);
        Ok(())
    }

    /// Writes the parts, reads them back against their hashes, then the manifest, then the row; [`Checkpoints::begin`] comes before.
    /// `range`: see [`Manifest::range`].
    ///
    /// # Errors
    /// A part cannot be made or stored, or is read back as something else. The row then says why, and no part is left.
    pub async fn write(
        &self,
        label: &Label,
        snapshot: Snapshot,
        range: Option<f32>,
    ) -> Result<CheckpointRow, CheckpointError> {
        let written = self.write_all(label, snapshot, range).await;
        match &written {
            Ok(row) => self.tell(label, row.status, None),
            Err(error) => self.fail(label, &error.to_string()).await?,
        }
        written
    }

    /// Gives up a checkpoint that is being written: removes what there is of it, says why in its row, and tells who watches.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the row cannot be written.
    pub async fn fail(&self, label: &Label, reason: &str) -> Result<(), CheckpointError> {
        let abandoned = self.abandon(label.id, reason).await;
        self.tell(label, CheckpointStatus::Failed, Some(reason));
        abandoned
    }

    async fn write_all(
        &self,
        label: &Label,
        snapshot: Snapshot,
        range: Option<f32>,
    ) -> Result<CheckpointRow, CheckpointError> {
        let id = label.id;
        let row = self.row(id).await?.ok_or(CheckpointError::Unknown(id))?;
        let preprocessing = Preprocessing::new(snapshot.encoder.side);
        let mut manifest = Manifest {
            version: FORMAT,
            id,
            step: snapshot.trainer.step,
            encoder: snapshot.encoder,
            parts: Vec::with_capacity(PARTS.len()),
            created_at: row.created_at,
            note: label.note.clone(),
            parent: label.parent,
            sequence: Some(row.sequence),
            range,
            preprocessing_hash: Some(preprocessing_hash(&preprocessing)),
            preprocessing: Some(preprocessing),
            origin: snapshot.origin,
        };
        // Each source is dropped when its bytes are made, so that a large state is never there three times.
        let (model, optimizer) = (snapshot.model, snapshot.optimizer);
        let (chains, trainer) = (snapshot.chains, snapshot.trainer);
        let parts = &mut manifest.parts;
        parts.push(
            self.put(id, MODEL, move || Ok(kith_nn::arrays_to_bytes(&model)?))
                .await?,
        );
        parts.push(
            self.put(id, OPTIMIZER, move || {
                Ok(kith_nn::arrays_to_bytes(&optimizer)?)
            })
            .await?,
        );
        parts.push(
            self.put(id, CHAINS, move || Ok(kith_mcmc::chains_to_bytes(&chains)?))
                .await?,
        );
        parts.push(self.put(id, TRAINER, move || to_json(&trainer)).await?);
        self.put(id, MANIFEST, {
            let manifest = manifest.clone();
            move || to_json(&manifest)
        })
        .await?;
        self.db.complete_checkpoint(id, manifest.bytes()).await?;
        self.row(id).await?.ok_or(CheckpointError::Unknown(id))
    }

    /// Makes one file's bytes, stores them, and reads them back against their hash.
    async fn put(
        &self,
        id: CheckpointId,
        name: &str,
        bytes: impl FnOnce() -> Result<Vec<u8>, FileError> + Send + 'static,
    ) -> Result<Part, CheckpointError> {
        let file = name.to_owned();
        let (part, bytes) = blocking(move || {
            let bytes = bytes()?;
            Ok::<_, FileError>((Part::new(&file, &bytes), Bytes::from(bytes)))
        })
        .await?
        .map_err(|what| damaged(id, format!("{name} cannot be made: {what}")))?;
        let key = BlobKey::CheckpointPart(id, name.to_owned());
        self.blobs.put(&key, bytes).await?;
        let stored = self.blobs.get(&key).await?;
        let wanted = part.clone();
        blocking(move || wanted.check(&stored))
            .await?
            .map_err(|what| damaged(id, format!("read back after writing: {what}")))?;
        Ok(part)
    }

    /// Removes what there is of a checkpoint that failed, and says why in its row.
    pub(super) async fn abandon(
        &self,
        id: CheckpointId,
        reason: &str,
    ) -> Result<(), CheckpointError> {
        if let Err(error) = self.remove_files(id).await {
            tracing::warn!(checkpoint = %id, %error, "the files of a failed checkpoint stay until the next start");
        }
        Ok(self.db.fail_checkpoint(id, reason).await?)
    }

    /// The manifest first: without it the rest is no checkpoint, whenever this is cut off.
    pub(super) async fn remove_files(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        let key = |name: String| BlobKey::CheckpointPart(id, name);
        self.blobs.delete(&key(MANIFEST.to_owned())).await?;
        for name in self.blobs.checkpoint_parts(id).await? {
            self.blobs.delete(&key(name)).await?;
        }
        Ok(())
    }

    pub(super) async fn row(
        &self,
        id: CheckpointId,
    ) -> Result<Option<CheckpointRow>, CheckpointError> {
        Ok(self.db.checkpoint(id).await?)
    }
}

/// A row of a checkpoint that is being written.
pub(super) fn new_row(label: &Label, step: u64, created_at: Timestamp) -> CheckpointRow {
    CheckpointRow {
        note: label.note.clone(),
        parent: label.parent,
        kept: label.kept,
        ..CheckpointRow::new(label.id, step, created_at)
    }
}

pub(super) fn damaged(id: CheckpointId, what: String) -> CheckpointError {
    CheckpointError::Damaged { id, what }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, FileError> {
    Ok(serde_json::to_vec_pretty(value)?)
}

/// Runs `work` off the async threads: hashing and parsing take long.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CheckpointError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(CheckpointError::Stopping),
    }
}

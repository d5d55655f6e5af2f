//! Reading a checkpoint back: nothing leaves this file that does not agree with the manifest.
//! Must never know: which checkpoint is wanted, or why.

use bytes::Bytes;

use super::{
    CheckpointError, Checkpoints, Manifest, Model, Snapshot, TrainerState,
    manifest::{CHAINS, MANIFEST, MODEL, OPTIMIZER, PARTS, TRAINER},
    parts,
    store::{blocking, damaged},
};
use crate::{
    blobs::{BlobError, BlobKey},
    db::{CheckpointRow, CheckpointStatus},
    mcmc::ChainColumns,
    types::CheckpointId,
};

impl Checkpoints {
    /// Reads and verifies everything. A damaged or missing chain table only is no refusal: the table starts empty, which is logged as an
    /// error, since chains are a hint that a few visits restore.
    pub async fn load(&self, id: CheckpointId) -> Result<Snapshot, CheckpointError> {
        let manifest = self.manifest(id).await?;
        let arrays = |bytes: Bytes| parts::arrays_from_bytes(&bytes);
        let model = self.read(&manifest, MODEL, arrays).await?;
        let optimizer = self.read(&manifest, OPTIMIZER, arrays).await?;
        let trainer: TrainerState = self
            .read(&manifest, TRAINER, |bytes| {
                serde_json::from_slice(&bytes).map_err(|error| error.to_string())
            })
            .await?;
        if trainer.step != manifest.step {
            let what = format!(
                "{TRAINER} is of step {}, {MANIFEST} of step {}",
                trainer.step, manifest.step
            );
            return Err(damaged(id, what));
        }
        let chains = self
            .read(&manifest, CHAINS, |bytes| parts::chains_from_bytes(&bytes))
            .await;
        let chains = chains.or_else(|error| forget_chains(id, error))?;
        Ok(Snapshot {
            encoder: manifest.encoder,
            model,
            optimizer,
            chains,
            trainer,
        })
    }

    /// Reads and verifies the model only.
    pub async fn load_model(&self, id: CheckpointId) -> Result<Model, CheckpointError> {
        let manifest = self.manifest(id).await?;
        let arrays = self
            .read(&manifest, MODEL, |bytes| parts::arrays_from_bytes(&bytes))
            .await?;
        Ok(Model {
            id,
            step: manifest.step,
            encoder: manifest.encoder,
            arrays,
        })
    }

    /// One part, verified and parsed off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        manifest: &Manifest,
        name: &str,
        parse: impl FnOnce(Bytes) -> Result<T, String> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let id = manifest.id;
        let bytes = self.bytes(id, name).await?;
        let part = manifest.part(name).cloned();
        let part = part.ok_or_else(|| damaged(id, format!("{MANIFEST} does not name {name}")))?;
        let name = name.to_owned();
        blocking(move || {
            part.check(&bytes)?;
            parse(bytes).map_err(|what| format!("{name} cannot be read: {what}"))
        })
        .await?
        .map_err(|what| damaged(id, what))
    }

    async fn bytes(&self, id: CheckpointId, name: &str) -> Result<Bytes, CheckpointError> {
        let key = BlobKey::CheckpointPart(id, name.to_owned());
        self.blobs.get(&key).await.map_err(|error| match error {
            BlobError::NotFound(_) => damaged(id, format!("{name} is missing")),
            other => other.into(),
        })
    }

    /// The manifest of a complete checkpoint.
    pub async fn manifest(&self, id: CheckpointId) -> Result<Manifest, CheckpointError> {
        self.complete_row(id).await?;
        self.stored_manifest(id).await
    }

    /// The manifest, whatever the row says.
    pub(super) async fn stored_manifest(
        &self,
        id: CheckpointId,
    ) -> Result<Manifest, CheckpointError> {
        let bytes = self.bytes(id, MANIFEST).await?;
        Manifest::read(id, &bytes).map_err(|what| damaged(id, what))
    }

    /// One file's bytes, as stored; the manifest's too.
    pub async fn part(&self, id: CheckpointId, name: &str) -> Result<Bytes, CheckpointError> {
        self.complete_row(id).await?;
        if name != MANIFEST && !PARTS.contains(&name) {
            return Err(damaged(id, format!("it has no file {name}")));
        }
        self.bytes(id, name).await
    }

    async fn complete_row(&self, id: CheckpointId) -> Result<CheckpointRow, CheckpointError> {
        let row = self.row(id).await?;
        row.filter(|row| row.status == CheckpointStatus::Complete)
            .ok_or(CheckpointError::Unknown(id))
    }
}

impl Model {
    /// The model of a manifest's and a model file's bytes, verified; an error says in words what is wrong.
    pub fn from_files(manifest: &[u8], model: &[u8]) -> Result<Self, String> {
        let manifest = Manifest::parse(manifest)?;
        let part = manifest
            .part(MODEL)
            .ok_or_else(|| format!("{MANIFEST} does not name {MODEL}"))?;
        part.check(model)?;
        Ok(Self {
            id: manifest.id,
            step: manifest.step,
            encoder: manifest.encoder,
            arrays: parts::arrays_from_bytes(model)?,
        })
    }
}

fn forget_chains(
    id: CheckpointId,
    error: CheckpointError,
) -> Result<ChainColumns, CheckpointError> {
    match error {
        CheckpointError::Damaged { what, .. } => {
            tracing::error!(checkpoint = %id, what, "the chain table is damaged: all chains start anew");
            Ok(ChainColumns::default())
        }
        other => Err(other),
    }
}

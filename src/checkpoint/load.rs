//! Reads checkpoints back. Every part is verified against the manifest.

use bytes::Bytes;

use super::{
    CheckpointError, Checkpoints, Manifest, Model, Snapshot, TrainerState,
    files::{CHAINS, FileError, MANIFEST, MODEL, OPTIMIZER, PARTS, TRAINER},
    roles::check_finite,
    store::{blocking, damaged},
};
use crate::{
    blobs::{BlobError, BlobKey},
    db::{CheckpointRow, CheckpointStatus},
    types::CheckpointId,
};
use kith_mcmc::ChainColumns;
use kith_seed::mix;

impl Checkpoints {
    /// Reads and verifies everything. The weights are what a checkpoint is about: where they are whole and another part is damaged or missing,
    /// that part starts anew, which is logged as an error. Moments and chains are restored by some steps; the position within an epoch
    /// matters little. With the moments the weights in training and those of the start are lost: training goes on from the weights that serve.
    ///
    /// # Errors
    /// Those of [`Checkpoints::load_model`].
    pub async fn load(&self, id: CheckpointId) -> Result<Snapshot, CheckpointError> {
        let Model {
            encoder,
            arrays: model,
            step,
            ..
        } = self.load_model(id).await?;
        let manifest = self.manifest(id).await?;
        let origin = manifest.origin.clone();
        let arrays = |bytes: Bytes| Ok(kith_nn::arrays_from_bytes(&bytes)?);
        let optimizer = self.read(&manifest, OPTIMIZER, arrays).await;
        let chains = self.read(&manifest, CHAINS, |bytes| {
            Ok(kith_mcmc::chains_from_bytes(&bytes)?)
        });
        let chains = chains.await;
        let trainer = self.read(&manifest, TRAINER, move |bytes| position(&bytes, step));
        let trainer = trainer.await;
        Ok(Snapshot {
            encoder,
            model,
            optimizer: or_anew(optimizer, Vec::new)?,
            chains: or_anew(chains, ChainColumns::default)?,
            trainer: or_anew(trainer, || TrainerState::new(step, new_seed(id)))?,
            origin,
        })
    }

    /// Reads and verifies the model only. Weights that are not finite, or made for images that are prepared otherwise than this program does, are
    /// refused: no path serves, evaluates, exports or trains on them.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`] if it is not complete, [`CheckpointError::Damaged`] if the manifest or the model does not verify,
    /// [`CheckpointError::NotFinite`], [`CheckpointError::Preprocessing`], or a failure of the store.
    pub async fn load_model(&self, id: CheckpointId) -> Result<Model, CheckpointError> {
        let manifest = self.manifest(id).await?;
        let fits = manifest.check_preprocessing();
        fits.map_err(|error| CheckpointError::Preprocessing {
            id,
            what: error.to_string(),
        })?;
        let arrays = self
            .read(&manifest, MODEL, |bytes| {
                Ok(kith_nn::arrays_from_bytes(&bytes)?)
            })
            .await?;
        Ok(Model {
            id,
            step: manifest.step,
            encoder: manifest.encoder,
            arrays: check_finite(id, arrays).await?,
            range: manifest.range,
        })
    }

    /// One part, verified and parsed off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        manifest: &Manifest,
        name: &str,
        parse: impl FnOnce(Bytes) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let id = manifest.id;
        let bytes = self.bytes(id, name).await?;
        let part = manifest.part(name).cloned();
        let part = part.ok_or_else(|| damaged(id, format!("{MANIFEST} does not name {name}")))?;
        let name = name.to_owned();
        blocking(move || {
            part.check(&bytes).map_err(|error| error.to_string())?;
            parse(bytes).map_err(|what| format!("{name} cannot be read: {what}"))
        })
        .await?
        .map_err(|what: String| damaged(id, what))
    }

    async fn bytes(&self, id: CheckpointId, name: &str) -> Result<Bytes, CheckpointError> {
        let key = BlobKey::CheckpointPart(id, name.to_owned());
        self.blobs.get(&key).await.map_err(|error| match error {
            BlobError::NotFound(_) => damaged(id, format!("{name} is missing")),
            other => other.into(),
        })
    }

    /// The manifest of a complete checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`] if it is not complete, [`CheckpointError::Damaged`] if the manifest cannot be read, or a failure of the
    /// store.
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
        Manifest::read(id, &bytes).map_err(|error| damaged(id, error.to_string()))
    }

    /// One file's bytes, as stored; the manifest's too.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`] if it is not complete, [`CheckpointError::Damaged`] if it has no such file, or a failure of the store.
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
    /// The model in the bytes of a manifest and of a model file, verified.
    ///
    /// # Errors
    /// [`FileError`] says which file is wrong, and in what.
    pub fn from_files(manifest: &[u8], model: &[u8]) -> Result<Self, FileError> {
        let manifest = Manifest::parse(manifest)?;
        let part = manifest.part(MODEL).ok_or(FileError::Unnamed(MODEL))?;
        part.check(model)?;
        manifest.check_preprocessing()?;
        Ok(Self {
            id: manifest.id,
            step: manifest.step,
            encoder: manifest.encoder,
            arrays: kith_nn::arrays_from_bytes(model)?,
            range: manifest.range,
        })
    }
}

/// The trainer's position, which must be that of `step`.
fn position(bytes: &[u8], step: u64) -> Result<TrainerState, FileError> {
    let state: TrainerState = serde_json::from_slice(bytes)?;
    if state.step == step {
        Ok(state)
    } else {
        Err(FileError::OtherStep {
            found: state.step,
            wanted: step,
        })
    }
}

/// The part as read, or a new one in place of a damaged one. A failing store is an error.
fn or_anew<T>(
    read: Result<T, CheckpointError>,
    anew: impl FnOnce() -> T,
) -> Result<T, CheckpointError> {
    match read {
        Err(CheckpointError::Damaged { id, what }) => {
            tracing::error!(checkpoint = %id, what, "a part is damaged: it starts anew, with the weights as they are");
            Ok(anew())
        }
        read => read,
    }
}

/// The seed of a run whose own is lost.
fn new_seed(id: CheckpointId) -> u64 {
    let (high, low) = id.0.as_u64_pair();
    mix(&[high, low])
}

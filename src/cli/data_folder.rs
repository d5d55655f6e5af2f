//! A data folder opened read-only, which a server may be using: its stores, and its checkpoints by name.

use std::{fs, path::Path};

use anyhow::{Context, bail};

use super::settings_args::SettingsArgs;
use crate::{
    app,
    blobs::Blobs,
    checkpoint::{Checkpoints, MANIFEST, Model},
    config::Settings,
    db::{CheckpointStatus, Db},
    types::CheckpointId,
};

/// The stores of a data folder.
pub(crate) struct DataFolder {
    pub(crate) db: Db,
    pub(crate) blobs: Blobs,
    pub(crate) checkpoints: Checkpoints,
}

impl DataFolder {
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let (db, blobs) = app::open_read_only(&settings.storage.data_dir).await?;
        let checkpoints = Checkpoints::new(blobs.clone(), db.clone(), settings.policy());
        Ok(Self {
            db,
            blobs,
            checkpoints,
        })
    }

    /// The id of the checkpoint `live`, `latest`, or of an id.
    pub(crate) async fn find(&self, name: &str) -> anyhow::Result<CheckpointId> {
        let found = match name {
            "live" => self.db.live_checkpoint().await?.map(|row| row.id),
            "latest" => self.complete().await?.first().copied(),
            _ => match name.parse() {
                Ok(id) => Some(id),
                Err(_) => bail!(
                    "{name:?} is not a checkpoint: give live, latest, an id, or a checkpoint's folder"
                ),
            },
        };
        found.with_context(|| format!("there is no {name} checkpoint in this data folder"))
    }

    /// All complete checkpoints, the newest first.
    pub(crate) async fn complete(&self) -> anyhow::Result<Vec<CheckpointId>> {
        let mut rows = self.db.checkpoints().await?;
        rows.retain(|row| row.status == CheckpointStatus::Complete);
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

/// Runs the asynchronous part of a subcommand.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("the async runtime cannot start")?
        .block_on(work)
}

/// The settings with another device, if one is named.
pub(crate) fn settings(args: &SettingsArgs, device: Option<&String>) -> anyhow::Result<Settings> {
    let mut settings = args.load()?;
    if let Some(device) = device {
        settings.encoder.device.clone_from(device);
    }
    Ok(settings)
}

/// The model of a checkpoint's folder, or of a model file that has its manifest beside it.
pub(crate) fn model_at(path: &Path) -> anyhow::Result<Model> {
    let (folder, model) = if path.is_dir() {
        (path, path.join("model.safetensors"))
    } else {
        (path.parent().unwrap_or(Path::new("")), path.to_owned())
    };
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let (manifest, bytes) = (read(&folder.join(MANIFEST))?, read(&model)?);
    Model::from_files(&manifest, &bytes)
        .with_context(|| format!("{} is not a checkpoint of kith", path.display()))
}

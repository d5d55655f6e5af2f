//! Puts the weights of a file into a data folder as a checkpoint. No server may use the folder meanwhile.

use std::path::Path;

use super::{
    error::{StartError, because},
    folder::{open_stores, refuse_lost_database},
    lock::FolderLock,
};
use crate::{
    checkpoint::{Checkpoints, Origin},
    config::Settings,
    foreground::Foreground,
    telemetry::Metrics,
    train::{self, Stores, WeightsFile},
    types::CheckpointId,
};
use kith_nn::Purpose;

/// Imports `file` into the data folder of `settings`, which is created if it is missing and the file is good: the new checkpoint, and what it was made
/// from.
///
/// # Errors
/// [`StartError`] if another process uses the folder, the file cannot be used, or the folder's checkpoints have another shape.
pub async fn import_weights(
    settings: &Settings,
    file: &Path,
) -> Result<(CheckpointId, Origin), StartError> {
    let config = settings.train_config();
    let device = settings.device(Purpose::Training);
    let device = device.map_err(because("encoder.device"))?;
    // First of all: a file that cannot be used leaves no folder behind.
    let opened = WeightsFile::open(file, &config.encoder, &device).await;
    let weights = opened.map_err(because("import"))?;
    let folder = &settings.storage.data_dir;
    let lock = FolderLock::take(folder)?;
    if !settings.storage.accept_loss {
        refuse_lost_database(folder).await?;
    }
    let (db, blobs) = open_stores(folder).await?;
    let stores = Stores {
        checkpoints: Checkpoints::new(blobs.clone(), db.clone(), settings.policy()),
        blobs,
        db,
        foreground: Foreground::new(1.0),
        metrics: Metrics::new(),
    };
    let imported = train::import(&config, &device, &stores, weights).await;
    stores.db.close().await;
    let unlocked = lock.release();
    let imported = imported.map_err(because("import"))?;
    unlocked.map_err(because("the data folder's lock"))?;
    Ok(imported)
}

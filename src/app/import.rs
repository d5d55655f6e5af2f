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
    train::{self, Stores},
    types::CheckpointId,
};
use kith_nn::Purpose;

/// Imports `file` into the data folder of `settings`, which is created if it is missing: the new checkpoint, and what it was made from.
///
/// # Errors
/// [`StartError`] if another process uses the folder, the file cannot be used, or the folder's checkpoints have another shape.
pub async fn import_weights(
    settings: &Settings,
    file: &Path,
) -> Result<(CheckpointId, Origin), StartError> {
    let folder = &settings.storage.data_dir;
    let lock = FolderLock::take(folder)?;
    refuse_lost_database(folder).await?;
    let (db, blobs) = open_stores(folder).await?;
    let stores = Stores {
        checkpoints: Checkpoints::new(blobs.clone(), db.clone(), settings.policy()),
        blobs,
        db,
        foreground: Foreground::new(1.0),
    };
    let device = settings.device(Purpose::Training);
    let device = device.map_err(because("encoder.device"))?;
    let imported = train::import(&settings.train_config(), &device, &stores, file).await;
    stores.db.close().await;
    lock.release().map_err(because("the data folder's lock"))?;
    imported.map_err(because("import"))
}

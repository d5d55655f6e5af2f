//! The parts of the running server, and the order in which they start and stop.

mod error;
mod exposure;
mod lock;
mod writable;

use std::{fs, path::Path, sync::Arc};

pub use self::{error::StartError, exposure::check_exposure};
use self::{error::because, lock::FolderLock, writable::Writable};
use crate::{
    blobs::Blobs,
    checkpoint::Checkpoints,
    config::Settings,
    db::Db,
    image_store::ImageStore,
    ingest::{Ingest, IngestError},
    serve::Serving,
    train::Trainer,
};
use kith_nn::{Device, Purpose};

const DATABASE: &str = "kith.db";
const BLOBS: &str = "blobs";

/// The started parts of the server; cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// The database.
    pub db: Db,
    /// The blob store.
    pub blobs: Blobs,
    /// Stores posted images and pairs.
    pub ingest: Ingest,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The serving side.
    pub serving: Serving,
    /// The training side.
    pub trainer: Trainer,
    /// Whether the data folder can be written.
    pub(crate) writable: Writable,
    lock: Arc<FolderLock>,
}

impl App {
    /// Locks and opens the data folder, migrates the database, resumes training (or writes checkpoint 0), and serves.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let folder = &settings.storage.data_dir;
        let lock = Arc::new(FolderLock::take(folder)?);
        let open = |purpose| settings.device(purpose).map_err(because("encoder.device"));
        let device = open(Purpose::Training)?;
        if !settings.storage.accept_loss {
            refuse_lost_database(folder).await?;
        }
        let (db, blobs) = open_stores(folder).await?;
        let checkpoints = Checkpoints::new(blobs.clone(), db.clone(), settings.policy());
        let (limits, holdout_share) = (settings.limits.clone(), settings.pairs.holdout_share);
        let ingest = Ingest::new(blobs.clone(), db.clone(), limits, holdout_share);
        // No other process uses the folder, so writes and erasures that a kill interrupted can be finished.
        blobs.sweep().map_err(because("the blob store"))?;
        let finished = ingest.finish_erasures().await;
        match finished {
            // Bytes that cannot be removed are logged one by one, and tried again at the next start.
            Ok(_) | Err(IngestError::Blobs(_)) => {}
            Err(error) => return Err(because("finishing interrupted erasures")(error)),
        }
        let swept = ingest.sweep_orphans().await;
        swept.map_err(because("removing images without a row"))?;
        recheck_damaged(&blobs, &db).await?;
        // The trainer comes first: it writes checkpoint 0 if there is none to serve.
        let trainer = Trainer::start(
            settings.train_config(),
            device,
            blobs.clone(),
            db.clone(),
            checkpoints.clone(),
        )
        .await
        .map_err(because("the trainer"))?;
        let serving = start_serving(&settings, open(Purpose::Serving)?, &db, &checkpoints).await?;
        tracing::info!(folder = %folder.display(), device = %settings.encoder.device, "started");
        Ok(Self {
            settings: Arc::new(settings),
            writable: Writable::new(db.clone(), blobs.clone()),
            db,
            blobs,
            ingest,
            checkpoints,
            serving,
            trainer,
            lock,
        })
    }

    /// Stops in order: answers accepted requests, takes the last snapshot, closes the database. HTTP must have stopped accepting before.
    /// If the snapshot fails, everything else stops all the same and its error is returned.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.serving.stop().await;
        let trained = self.trainer.stop().await;
        self.db.close().await;
        // Clones of this handle may keep the lock file open, so dropping is not enough.
        let unlocked = self.lock.release();
        trained.map_err(because("the last snapshot"))?;
        unlocked.map_err(because("the data folder's lock"))?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Opens the database and the blob store of an existing data folder read-only. The lock is not taken, so that a server may use the folder
/// meanwhile.
pub async fn open_read_only(folder: &Path) -> Result<(Db, Blobs), StartError> {
    let database = fs::metadata(folder.join(DATABASE));
    if database.map_or(true, |file| !file.is_file() || file.len() == 0) {
        refuse_lost_database(folder).await?;
        return Err(StartError(format!(
            "{} is not a data folder of kith: name one with --data-dir",
            folder.display()
        )));
    }
    let db = Db::look(&folder.join(DATABASE)).await;
    let blobs = Blobs::look(&folder.join(BLOBS));
    Ok((
        db.map_err(because("the database"))?,
        blobs.map_err(because("the blob store"))?,
    ))
}

/// An error if the database is missing although images or checkpoints are stored: it was lost, and a new one would hide that.
async fn refuse_lost_database(folder: &Path) -> Result<(), StartError> {
    let missing = Db::is_missing(&folder.join(DATABASE)).await;
    if !missing.map_err(because("the database"))? {
        return Ok(());
    }
    let stored = Blobs::holds_any(&folder.join(BLOBS));
    if !stored.map_err(because("the blob store"))? {
        return Ok(());
    }
    Err(StartError(format!(
        "the data folder {} holds images or checkpoints, but its database {DATABASE} is missing or empty: put {DATABASE} back from a \
         backup, or choose another folder with --data-dir. To start without what it knew, pass --set storage.accept_loss=true: \
         pairs are then lost, and stored images are removed for good",
        folder.display()
    )))
}

async fn open_stores(folder: &Path) -> Result<(Db, Blobs), StartError> {
    let db = Db::open(&folder.join(DATABASE)).await;
    let blobs = Blobs::local(&folder.join(BLOBS));
    Ok((
        db.map_err(because("the database"))?,
        blobs.map_err(because("the blob store"))?,
    ))
}

async fn start_serving(
    settings: &Settings,
    device: Device,
    db: &Db,
    checkpoints: &Checkpoints,
) -> Result<Serving, StartError> {
    Serving::start(
        settings.serving.clone(),
        settings.limits.clone(),
        device,
        db.clone(),
        checkpoints.clone(),
    )
    .await
    .map_err(because("serving"))
}

/// Clears the mark of damaged images whose files were put back.
async fn recheck_damaged(blobs: &Blobs, db: &Db) -> Result<(), StartError> {
    let images = ImageStore::new(blobs.clone(), db.clone());
    let healed = images.recheck().await;
    let healed = healed.map_err(because("the damaged images"))?;
    if healed > 0 {
        tracing::info!(healed, "damaged images were repaired");
    }
    Ok(())
}

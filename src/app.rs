//! The running whole: which parts there are, and the order in which they start and stop.

mod lock;
mod writable;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
};

pub use self::lock::FolderLock;
use crate::{
    blobs::Blobs,
    checkpoint::Checkpoints,
    config::{ServerConfig, Settings},
    db::Db,
    image_store::ImageStore,
    ingest::Ingest,
    serve::Serving,
    train::Trainer,
};
use kith_nn::{Device, Purpose};

use writable::Writable;

const DATABASE: &str = "kith.db";
const BLOBS: &str = "blobs";

/// All parts, started. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// The database.
    pub db: Db,
    /// The blob store.
    pub blobs: Blobs,
    /// The way in for images and pairs.
    pub ingest: Ingest,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The serving side.
    pub serving: Serving,
    /// The training side.
    pub trainer: Trainer,
    /// Whether the data folder takes writes.
    pub writable: Writable,
    /// Where the encoder runs.
    pub device: Device,
    lock: Arc<FolderLock>,
}

impl App {
    /// Opens the data folder (locked against a second process), migrates, resumes or writes checkpoint 0, serves, trains.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let folder = &settings.storage.data_dir;
        let lock = Arc::new(FolderLock::take(folder)?);
        let open = |purpose| settings.device(purpose).map_err(because("encoder.device"));
        let device = open(Purpose::Training)?;
        if !settings.storage.accept_loss {
            refuse_lost_database(folder).await?;
        }
        let (db, blobs) = stores(folder).await?;
        let checkpoints = Checkpoints::new(blobs.clone(), db.clone(), settings.policy());
        let (limits, holdout_share) = (settings.limits.clone(), settings.pairs.holdout_share);
        let ingest = Ingest::new(blobs.clone(), db.clone(), limits, holdout_share);
        // The folder is this process's alone: what a kill cut off, writes and erasures, is tidied up.
        blobs.sweep().map_err(because("the blob store"))?;
        let finished = ingest.finish_erasures().await;
        finished.map_err(because("the erasures that were cut off"))?;
        let swept = ingest.sweep_orphans().await;
        swept.map_err(because("images that no row names"))?;
        recheck(&blobs, &db).await?;
        // Before serving: it resumes or writes checkpoint 0, so that there is something to serve.
        let trainer = Trainer::start(
            settings.train_config(),
            device.clone(),
            blobs.clone(),
            db.clone(),
            checkpoints.clone(),
        )
        .await
        .map_err(because("the trainer"))?;
        let serving = serving(&settings, open(Purpose::Serving)?, &db, &checkpoints).await?;
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
            device,
            lock,
        })
    }

    /// Stops in order: answers accepted requests, last snapshot, database. HTTP must have stopped accepting before.
    /// A snapshot that fails is the error, after everything else has stopped.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.serving.stop().await;
        let trained = self.trainer.stop().await;
        self.db.close().await;
        // Closing the file would release it too, but clones of this handle may live on.
        let unlocked = self.lock.release();
        trained.map_err(because("the last snapshot"))?;
        unlocked.map_err(because("the data folder's lock"))?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Database and blob store of a data folder that exists, for looking only: nothing is written, and the lock is not taken, so that a server
/// may use the folder meanwhile.
pub async fn look(folder: &Path) -> Result<(Db, Blobs), StartError> {
    if !folder.join(DATABASE).is_file() {
        return Err(StartError(format!(
            "{} is no data folder of kith: name one with --data-dir",
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

/// A database that is missing beside stored images or checkpoints was lost: an empty one in its place would hide that.
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

async fn stores(folder: &Path) -> Result<(Db, Blobs), StartError> {
    let db = Db::open(&folder.join(DATABASE)).await;
    let blobs = Blobs::local(&folder.join(BLOBS));
    Ok((
        db.map_err(because("the database"))?,
        blobs.map_err(because("the blob store"))?,
    ))
}

async fn serving(
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

/// Images that were listed as damaged and whose files were put back since.
async fn recheck(blobs: &Blobs, db: &Db) -> Result<(), StartError> {
    let images = ImageStore::new(blobs.clone(), db.clone());
    let healed = images.recheck().await;
    let healed = healed.map_err(because("the damaged images"))?;
    if healed > 0 {
        tracing::info!(healed, "damaged images are whole again");
    }
    Ok(())
}

/// Refuses an address that others can reach, unless the settings allow it: there are no API keys.
pub fn check_exposure(server: &ServerConfig) -> Result<(), StartError> {
    let listen = &server.listen;
    let addresses: Vec<SocketAddr> = listen
        .to_socket_addrs()
        .map_err(|error| {
            StartError(format!("server.listen {listen} is not an address ({error}): write one such as 127.0.0.1:7700"))
        })?
        .collect();
    match server.insecure || addresses.iter().all(is_loopback) {
        true => Ok(()),
        false => Err(StartError(format!(
            "{listen} can be reached from other machines and kith has no API keys: listen on 127.0.0.1 behind a proxy that \
             checks who asks, or allow it with --insecure"
        ))),
    }
}

/// `::ffff:127.0.0.1` is 127.0.0.1 written as IPv6.
fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Why the server cannot start or stop cleanly, in one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

fn because<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

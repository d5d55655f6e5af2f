//! The parts of the running server, and the order in which they start and stop.

mod error;
mod exposure;
mod folder;
mod import;
mod lock;
mod parts;
mod writable;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

pub use self::{
    error::StartError,
    exposure::check_exposure,
    folder::{ChangedFolder, open_database_read_only, open_for_changes, open_read_only},
    import::import_weights,
};
use self::{
    error::because,
    folder::{open_stores, refuse_lost_database},
    lock::FolderLock,
    parts::{OpenStores, Parts},
    writable::Writable,
};
use crate::{
    blobs::Blobs,
    checkpoint::Checkpoints,
    config::Settings,
    db::Db,
    events::{Events, Kind},
    foreground::Foreground,
    history::History,
    image_store::ImageStore,
    ingest::{Ingest, IngestError},
    keys::Keys,
    search::Search,
    serve::Serving,
    telemetry::Metrics,
    thumbnails::Thumbnails,
    train::{PairEffect, Trainer},
};
use kith_nn::Purpose;

/// How often the values of histograms are added up, should nobody read them.
const DRAIN_EVERY: Duration = Duration::from_secs(5);

/// The started parts of the server; cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The effective settings.
    pub settings: Arc<Settings>,
    /// The database.
    pub db: Db,
    /// The blob store.
    pub blobs: Blobs,
    /// The API keys that requests may carry.
    pub keys: Keys,
    /// Stores posted images and pairs.
    pub ingest: Ingest,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The serving side.
    pub serving: Serving,
    /// Finds stored images.
    pub search: Search,
    /// Small copies of the stored images.
    pub thumbnails: Thumbnails,
    /// How the server was.
    pub history: History,
    /// The training side.
    pub trainer: Trainer,
    /// The series of this server.
    pub metrics: Metrics,
    /// What happens.
    pub events: Events,
    /// The requests that training pauses for.
    pub foreground: Foreground,
    /// Whether the data folder can be written.
    pub(crate) writable: Writable,
    lock: Arc<FolderLock>,
    tasks: Arc<Tasks>,
}

impl App {
    /// Locks and opens the data folder, migrates the database, resumes training (or writes checkpoint 0 from first weights), and serves.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let folder = &settings.storage.data_dir;
        let lock = Arc::new(FolderLock::take(folder)?);
        let device = settings.device(Purpose::Training);
        let device = device.map_err(because("encoder.device"))?;
        if !settings.storage.accept_loss {
            refuse_lost_database(folder).await?;
        }
        let (db, blobs) = open_stores(folder).await?;
        let keys = Keys::start(db.clone(), settings.keys.clone()).await;
        let keys = keys.map_err(because("the API keys"))?;
        let events = Events::default();
        let checkpoints = Checkpoints::new(blobs.clone(), db.clone(), settings.policy());
        let checkpoints = checkpoints.with_events(events.clone());
        let (limits, holdout_share) = (settings.limits.clone(), settings.pairs.holdout_share);
        let ingest = Ingest::new(blobs.clone(), db.clone(), limits, holdout_share);
        finish_interrupted(&blobs, &db, &ingest).await?;
        let stores = OpenStores {
            db: &db,
            blobs: &blobs,
            checkpoints: &checkpoints,
        };
        let parts = Parts::start(&settings, device, stores).await?;
        let served_pairs = follow_promotions(&events, parts.trainer.pair_effect().clone());
        tracing::info!(folder = %folder.display(), device = %settings.encoder.device, "started");
        Ok(Self {
            settings: Arc::new(settings),
            writable: Writable::new(db.clone(), blobs.clone()),
            db,
            blobs,
            keys,
            ingest,
            checkpoints,
            serving: parts.serving,
            search: parts.search,
            thumbnails: parts.thumbnails,
            history: parts.history,
            trainer: parts.trainer,
            tasks: Arc::new(Tasks([draining(&parts.metrics), served_pairs])),
            metrics: parts.metrics,
            events,
            foreground: parts.foreground,
            lock,
        })
    }

    /// Stops in order: answers accepted requests, takes the last snapshot, closes the database. HTTP must have stopped accepting before.
    /// If the snapshot fails, everything else stops all the same and its error is returned.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.history.stop();
        self.search.stop();
        self.serving.stop().await;
        let trained = self.trainer.stop().await;
        self.keys.stop();
        self.tasks.abort();
        self.db.close().await;
        // Clones of this handle may keep the lock file open, so dropping is not enough.
        let unlocked = self.lock.release();
        trained.map_err(because("the last snapshot"))?;
        unlocked.map_err(because("the data folder's lock"))?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The tasks that keep histograms short and count the effect of pairs; they end with the last handle to the app.
struct Tasks([JoinHandle<()>; 2]);

impl Tasks {
    fn abort(&self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

fn draining(metrics: &Metrics) -> JoinHandle<()> {
    let metrics = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(DRAIN_EVERY).await;
            metrics.drain();
        }
    })
}

/// Tells the trainer's side which step serves, as serving tells of it.
fn follow_promotions(events: &Events, effect: PairEffect) -> JoinHandle<()> {
    let mut promotions = events.watch(0);
    tokio::spawn(async move {
        loop {
            let event = promotions.next().await;
            let step = event.data["step"].as_u64();
            if let Some(step) = step.filter(|_| event.kind == Kind::Promotion) {
                effect.served(step, event.at);
            }
        }
    })
}

/// Finishes writes and erasures that a kill interrupted. No other process uses the folder.
async fn finish_interrupted(blobs: &Blobs, db: &Db, ingest: &Ingest) -> Result<(), StartError> {
    blobs.sweep().map_err(because("the blob store"))?;
    match ingest.finish_erasures().await {
        // Bytes that cannot be removed are logged one by one, and tried again at the next start.
        Ok(_) | Err(IngestError::Blobs(_)) => {}
        Err(error) => return Err(because("finishing interrupted erasures")(error)),
    }
    let swept = ingest.sweep_orphans().await;
    swept.map_err(because("removing images without a row"))?;
    recheck_damaged(blobs, db).await
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

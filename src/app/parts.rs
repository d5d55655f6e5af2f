//! The parts that learn and serve, and those that are built on them.

use std::{num::NonZero, thread};

use super::error::{StartError, because};
use crate::{
    blobs::Blobs,
    checkpoint::Checkpoints,
    config::Settings,
    db::Db,
    foreground::Foreground,
    history::{self, History},
    image_store::ImageStore,
    search::{self, Search},
    serve::{self, Serving},
    telemetry::Metrics,
    thumbnails::Thumbnails,
    train::{self, Trainer},
};
use kith_nn::{Device, Purpose};

/// What is started before requests are answered.
pub(super) struct Parts {
    pub(super) trainer: Trainer,
    pub(super) serving: Serving,
    pub(super) metrics: Metrics,
    pub(super) foreground: Foreground,
    pub(super) search: Search,
    pub(super) thumbnails: Thumbnails,
    pub(super) history: History,
}

/// The open stores.
pub(super) struct OpenStores<'a> {
    pub(super) db: &'a Db,
    pub(super) blobs: &'a Blobs,
    pub(super) checkpoints: &'a Checkpoints,
}

impl Parts {
    /// Starts all of them. `device`: where training computes.
    pub(super) async fn start(
        settings: &Settings,
        device: Device,
        stores: OpenStores<'_>,
    ) -> Result<Self, StartError> {
        let foreground = Foreground::new(settings.background_share(cores()));
        // The trainer comes first: it writes checkpoint 0 if there is none to serve.
        let metrics = Metrics::new();
        let background = (&metrics, &foreground);
        let trainer = start_trainer(settings, device, &stores, background).await?;
        let serving = start_serving(settings, &stores, (&metrics, &foreground)).await?;
        let images = || ImageStore::new(stores.blobs.clone(), stores.db.clone());
        let search = search::Stores {
            db: stores.db.clone(),
            images: images(),
            checkpoints: stores.checkpoints.clone(),
            serving: serving.clone(),
            foreground: foreground.clone(),
            metrics: metrics.clone(),
        };
        let search = Search::start(settings.search.clone(), search).await;
        let sources = history::Sources {
            db: stores.db.clone(),
            serving: serving.clone(),
            trainer: trainer.clone(),
            foreground: foreground.clone(),
            metrics: metrics.clone(),
            data_dir: settings.storage.data_dir.clone(),
        };
        let kept = settings.server.thumbnail_cache_mb << 20;
        Ok(Self {
            search: search.map_err(because("search"))?,
            thumbnails: Thumbnails::new(images(), settings.limits.clone(), kept),
            history: History::start(settings.history.clone(), sources),
            trainer,
            serving,
            metrics,
            foreground,
        })
    }
}

async fn start_trainer(
    settings: &Settings,
    device: Device,
    stores: &OpenStores<'_>,
    (metrics, foreground): (&Metrics, &Foreground),
) -> Result<Trainer, StartError> {
    let stores = train::Stores {
        blobs: stores.blobs.clone(),
        db: stores.db.clone(),
        checkpoints: stores.checkpoints.clone(),
        foreground: foreground.clone(),
        metrics: metrics.clone(),
    };
    let trainer = Trainer::start(settings.train_config(), device, stores).await;
    trainer.map_err(because("the trainer"))
}

async fn start_serving(
    settings: &Settings,
    stores: &OpenStores<'_>,
    (metrics, foreground): (&Metrics, &Foreground),
) -> Result<Serving, StartError> {
    let device = settings.device(Purpose::Serving);
    let stores = serve::Stores {
        db: stores.db.clone(),
        checkpoints: stores.checkpoints.clone(),
        metrics: metrics.clone(),
        foreground: foreground.clone(),
    };
    Serving::start(
        settings.serving.clone(),
        settings.limits.clone(),
        device.map_err(because("encoder.device"))?,
        stores,
    )
    .await
    .map_err(because("serving"))
}

/// Cores that this process may use.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

//! A data folder with the settings of a tiny encoder, shared by the tests of checkpoints and of training.

use std::{io::Cursor, path::PathBuf, time::Duration};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use kith::{
    blobs::Blobs,
    checkpoint::Checkpoints,
    config::Settings,
    db::{CheckpointRow, Db, PairRow},
    foreground::Foreground,
    ingest::{Ingest, PairUpload, Upload},
    telemetry::Metrics,
    train::{Stores, TrainConfig, Trainer, TrainingStatus},
};
use kith_mcmc::PairWeight;
use kith_nn::Device;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

/// The parts below the trainer, in a folder of their own.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) blobs: Blobs,
    pub(crate) db: Db,
    pub(crate) checkpoints: Checkpoints,
    ingest: Ingest,
}

impl Lab {
    /// `holdout_share`: of the pairs that are posted.
    pub(crate) async fn new(holdout_share: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(&folder.path().join("blobs")).unwrap();
        let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
        let limits = config(&[]).limits;
        Self {
            checkpoints: Checkpoints::new(blobs.clone(), db.clone(), config(&[]).policy),
            ingest: Ingest::new(blobs.clone(), db.clone(), limits, holdout_share),
            folder,
            blobs,
            db,
        }
    }

    /// Posts pairs of two shades of one pattern each, numbered by `range`. The images come one by one, so that two folders filled alike
    /// give them the same keys, which the views of carried negatives are drawn by.
    pub(crate) async fn post(&self, range: std::ops::Range<u32>) -> Vec<PairRow> {
        self.post_in(range, None).await
    }

    /// [`Self::post`] in a group.
    pub(crate) async fn post_in(
        &self,
        range: std::ops::Range<u32>,
        group: Option<&str>,
    ) -> Vec<PairRow> {
        let mut pairs = Vec::new();
        for number in range {
            pairs.push(PairUpload {
                group: group.map(str::to_owned),
                ..self.pair([png(number, 0), png(number, 60)]).await
            });
        }
        let rows = self.ingest.add_pairs(pairs).await.unwrap();
        rows.into_iter().map(|(row, _)| row).collect()
    }

    /// Posts pairs of these images, and holds out this share of them.
    pub(crate) async fn post_images(
        &self,
        images: impl IntoIterator<Item = [Bytes; 2]>,
        holdout_share: f64,
    ) -> Vec<PairRow> {
        let alike = images.into_iter().map(|images| (images, None));
        self.post_weighted(alike, holdout_share).await
    }

    /// [`Self::post_images`] with weights.
    pub(crate) async fn post_weighted(
        &self,
        images: impl IntoIterator<Item = ([Bytes; 2], Option<f64>)>,
        holdout_share: f64,
    ) -> Vec<PairRow> {
        let mut pairs = Vec::new();
        for (images, weight) in images {
            pairs.push(PairUpload {
                weight: weight.and_then(PairWeight::new),
                ..self.pair(images).await
            });
        }
        let (blobs, db) = (self.blobs.clone(), self.db.clone());
        let ingest = Ingest::new(blobs, db, config(&[]).limits, holdout_share);
        let rows = ingest.add_pairs(pairs).await.unwrap();
        rows.into_iter().map(|(row, _)| row).collect()
    }

    async fn pair(&self, [anchor, positive]: [Bytes; 2]) -> PairUpload {
        PairUpload {
            anchor: self.store(anchor).await,
            positive: Some(self.store(positive).await),
            group: None,
            weight: None,
        }
    }

    async fn store(&self, image: Bytes) -> Upload {
        Upload::Id(self.ingest.add_image(image).await.unwrap().0.sha256)
    }

    /// Takes a snapshot and waits until it is written: its row.
    pub(crate) async fn take(&self, trainer: &Trainer, note: Option<&str>) -> CheckpointRow {
        let id = trainer.snapshot(note.map(str::to_owned)).await.unwrap();
        trainer.written(id).await.unwrap();
        self.db.checkpoint(id).await.unwrap().unwrap()
    }

    /// Puts a file in the place of the folder of checkpoints, so that none can be written.
    pub(crate) fn block_checkpoints(&self) {
        let (folder, away) = self.checkpoint_folders();
        std::fs::rename(&folder, away).unwrap();
        std::fs::write(&folder, "no folder").unwrap();
    }

    /// Undoes [`Self::block_checkpoints`].
    pub(crate) fn unblock_checkpoints(&self) {
        let (folder, away) = self.checkpoint_folders();
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(away, &folder).unwrap();
    }

    fn checkpoint_folders(&self) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        (folder.join("blobs/checkpoints"), folder.join("away"))
    }

    /// A connection to the database behind the server's back.
    pub(crate) async fn sqlite(&self) -> SqliteConnection {
        let url = format!("sqlite://{}", self.folder.path().join("kith.db").display());
        SqliteConnection::connect(&url).await.unwrap()
    }

    pub(crate) async fn start(&self, config: TrainConfig) -> Trainer {
        self.start_behind(config, Foreground::new(1.0)).await
    }

    /// A trainer that gives way to `foreground`.
    pub(crate) async fn start_behind(
        &self,
        config: TrainConfig,
        foreground: Foreground,
    ) -> Trainer {
        let stores = self.stores(foreground);
        Trainer::start(config, Device::cpu(), stores).await.unwrap()
    }

    /// What a trainer of this folder works with.
    pub(crate) fn stores(&self, foreground: Foreground) -> Stores {
        Stores {
            blobs: self.blobs.clone(),
            db: self.db.clone(),
            checkpoints: self.checkpoints.clone(),
            foreground,
            metrics: Metrics::new(),
        }
    }
}

/// An image that differs with `number`, brighter by `shade`.
pub(crate) fn png(number: u32, shade: u8) -> Bytes {
    let image = RgbImage::from_fn(40, 40, |x, y| {
        let cell = number * 31 + (x / 10) * 7 + (y / 10) * 13 * (number % 5 + 1);
        let [red, green, blue] = [cell * 37 % 190, cell * 59 % 190, cell * 83 % 190];
        Rgb([red as u8 + shade, green as u8 + shade, blue as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

/// Settings for a tiny encoder that takes no snapshot of its own accord, with `sets` on top.
pub(crate) fn config(sets: &[&str]) -> TrainConfig {
    let tiny = [
        "encoder.width=8",
        "encoder.side=32",
        "encoder.dim=16",
        "training.batch=4",
        "training.min_pairs=4",
        "training.threads=2",
        // Other tests keep the machine busy, and these wait for steps.
        "training.idle_class=false",
        "training.metrics_every=2",
        "schedule.warmup_steps=2",
        // After so short a warm-up the default rate can make so few values collapse.
        "schedule.learning_rate=2e-4",
        "snapshots.every_steps=0",
        "snapshots.every_minutes=0.0",
        "snapshots.first_steps=0",
        // A stop may come before a fit or after it; tests compare the weights that training goes on from.
        "snapshots.head_pairs=0",
    ];
    let sets: Vec<String> = tiny.iter().chain(sets).map(|set| set.to_string()).collect();
    Settings::load(None, &sets).unwrap().train_config()
}

/// As [`config`], with a gate to which all embeddings look collapsed.
pub(crate) fn collapsing(sets: &[&str]) -> TrainConfig {
    let mut config = config(sets);
    // The settings refuse such a threshold: no spread is above 1.
    config.policy.gate.collapse_spread = 2.0;
    config.policy.gate.collapse_cosine = -1.0;
    config
}

/// The status once it is as expected.
pub(crate) async fn until(
    trainer: &Trainer,
    wish: impl Fn(&TrainingStatus) -> bool,
) -> TrainingStatus {
    let found = poll(async || Some(trainer.status()).filter(&wish)).await;
    found.unwrap_or_else(|| panic!("still {:?}", trainer.status()))
}

/// What `look` finds in the end; `None` after a minute, which is far beyond what any of the tests' steps take.
pub(crate) async fn poll<T>(look: impl AsyncFn() -> Option<T>) -> Option<T> {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found)
        .await
        .ok()
}

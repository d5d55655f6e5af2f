//! The handle to serving. A request passes through admission, choice of the encoder, decoding, and the batcher's queue.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    task::JoinHandle,
};
use tracing::{Span, trace_span};

use super::{
    Embedded, ModelInfo, Priority, Row, ServeConfig, ServeError, Which,
    admission::{Admission, Admissions},
    batcher::{Batcher, Job, PassSizes},
    cache::{Key, VectorCache},
    canary::Canaries,
    decode::{DecodePool, decode},
    instruments::Instruments,
    live::Live,
    loaded::{Loaded, LoadedTower, Loader},
    pinned::Pinned,
    queue::Origin,
};
use crate::{
    checkpoint::{CheckpointError, Checkpoints},
    db::Db,
    foreground::Foreground,
    telemetry::{Metrics, Stage, traces::STAGE},
    types::{CheckpointId, Sha256},
};
use kith_mcmc::Side;
use kith_nn::Device;
use kith_pixels::Limits;

/// Bytes of images that are hashed at once; more are hashed on a blocking thread.
const MAX_HASHED_INLINE: usize = 256 * 1024;

/// Handle to serving; cheap to clone.
#[derive(Clone)]
pub struct Serving {
    pub(super) shared: Arc<Shared>,
}

/// What serving reads from, and where it counts.
pub struct Stores {
    /// The database, whose row says which checkpoint is live.
    pub db: Db,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The series of the server.
    pub metrics: Metrics,
    /// Where requests come before training.
    pub foreground: Foreground,
}

pub(super) struct Shared {
    config: ServeConfig,
    live: Live,
    loader: Loader,
    pinned: Pinned<Loaded>,
    decoders: DecodePool,
    batcher: Arc<Batcher>,
    cache: VectorCache,
    pub(super) canaries: Canaries,
    instruments: Instruments,
    pub(super) foreground: Foreground,
    admissions: Admissions,
    /// Requests so far.
    pub(super) requests: AtomicU64,
    follower: Mutex<Option<JoinHandle<()>>>,
}

impl Serving {
    /// Most images of one request, and of all that wait.
    pub fn queue_images(&self) -> usize {
        self.shared.config.queue_images
    }

    /// Loads the live checkpoint, starts the encoder's thread and the follower.
    ///
    /// # Errors
    /// [`ServeError::Encode`] if a thread cannot be started. A live checkpoint that does not load is an error too, unless its vectors are not
    /// finite: serving then starts without one.
    pub async fn start(
        config: ServeConfig,
        limits: Limits,
        device: Device,
        stores: Stores,
    ) -> Result<Self, ServeError> {
        let Stores {
            db,
            checkpoints,
            metrics,
            foreground,
        } = stores;
        let instruments = Instruments::new(&metrics);
        let encoders = Arc::new(pool("kith-encode", config.threads)?);
        let (max_batch, threads) = (config.max_batch, encoders.current_num_threads());
        let sizes = if device.is_cpu() {
            PassSizes::cpu(max_batch, threads)
        } else {
            PassSizes::large(max_batch)
        };
        let admissions = Admissions::new(
            config.queue_images,
            Duration::from_millis(config.max_wait_ms),
            max_batch,
        );
        let counts = (instruments.clone(), admissions.estimate().clone());
        let batcher = Batcher::start(encoders.clone(), sizes, counts).map_err(no_threads)?;
        let loader = Loader {
            checkpoints,
            device,
            precision: config.precision,
            pool: encoders,
        };
        let shared = Arc::new(Shared {
            canaries: Canaries::new(db.clone()),
            live: Live::new(db, loader.clone()),
            loader,
            pinned: Pinned::new(config.pinned),
            decoders: DecodePool::new(pool("kith-decode", config.decode_threads)?, limits),
            batcher: Arc::new(batcher),
            cache: VectorCache::new(config.cache_mb << 20).counted_by(instruments.clone()),
            instruments,
            foreground,
            admissions,
            requests: AtomicU64::new(0),
            follower: Mutex::new(None),
            config,
        });
        match shared.live.follow().await {
            // It starts unready: another checkpoint can be promoted.
            Err(error @ ServeError::NotFinite { .. }) => {
                tracing::error!(%error, "no checkpoint serves");
            }
            followed => followed?,
        }
        shared
            .canaries
            .follow()
            .await
            .map_err(CheckpointError::from)?;
        let follower = tokio::spawn(follow(Arc::downgrade(&shared)));
        *shared.follower() = Some(follower);
        Ok(Self { shared })
    }

    /// The live model, if one is loaded.
    pub fn live(&self) -> Option<ModelInfo> {
        self.shared.live.info()
    }

    /// Images that were accepted and not answered yet.
    pub fn waiting(&self) -> usize {
        self.shared.admissions.waiting()
    }

    /// Bytes of the vectors that are kept.
    pub fn cache_bytes(&self) -> u64 {
        self.shared.cache.bytes()
    }

    /// A model by name, loading a pinned one if needed.
    ///
    /// # Errors
    /// [`ServeError::NotReady`] if none is live yet; for a pinned one whatever keeps it from being loaded.
    pub async fn model(&self, which: Which) -> Result<ModelInfo, ServeError> {
        self.shared.encoder(which).await.map(|loaded| loaded.info)
    }

    /// Takes places in the queue for `images` images, at once or not at all.
    ///
    /// # Errors
    /// [`ServeError::TooMany`] if the queue never holds that many, [`ServeError::Overloaded`] if it does not at the moment, or
    /// [`ServeError::Stopping`].
    pub fn admit(&self, images: usize) -> Result<Admission, ServeError> {
        self.shared.admissions.admit(images)
    }

    /// Embeds images as those of `side`: decode on the bounded pool, then the batcher. Dropping the future drops the images from the queue.
    /// The encoder is captured once, so all rows come from one checkpoint. Without a `priority` a request of few images is interactive.
    ///
    /// # Errors
    /// Those of [`Serving::admit`] and [`Serving::model`], [`ServeError::LongWait`] for a request of few images, [`ServeError::Pixels`] for the first image that cannot be decoded, or
    /// [`ServeError::NotFinite`] and [`ServeError::Encode`] if the encoder fails.
    pub async fn embed(
        &self,
        (which, side): (Which, Side),
        images: Vec<Bytes>,
        priority: Option<Priority>,
    ) -> Result<Embedded, ServeError> {
        let admission = self.admit(images.len())?;
        let small = Priority::of(priority, images.len()) == Priority::Interactive;
        let _waiting = small
            .then(|| self.shared.admissions.enqueue_small(images.len()))
            .transpose()?;
        let _request = self.shared.foreground.enter();
        let encoder = self.shared.encoder(which).await?.tower(side).clone();
        let (model, side) = (encoder.info, encoder.side);
        let origin = Origin {
            request: self.shared.requests.fetch_add(1, SeqCst),
            small,
        };
        let keys = self.shared.keys(&images, (model.id, side)).await;
        let images = images.into_iter().zip(keys).zip(admission.places());
        let answers = images.map(|((image, key), place)| {
            let encoded = self.shared.encode(image, place, (origin, encoder.clone()));
            self.shared.cache.row(key, encoded)
        });
        // All are under way at once. They are awaited in order, so that of several bad images the first is named, whichever was found first.
        let mut answers = answers.collect::<FuturesOrdered<_>>().enumerate();
        let mut rows = Vec::new();
        while let Some((index, row)) = answers.next().await {
            rows.push(row.map_err(|error| in_request(index, which, error))?);
        }
        Ok(Embedded { model, side, rows })
    }

    /// Reads the live row now (after a promotion), and returns once its checkpoint serves.
    ///
    /// # Errors
    /// Whatever keeps that checkpoint from being loaded; the one before then goes on serving.
    pub async fn follow_now(&self) -> Result<(), ServeError> {
        self.shared.live.follow().await
    }

    /// Drops a deleted checkpoint from memory.
    pub fn forget(&self, id: CheckpointId) {
        self.shared.pinned.forget(id);
    }

    /// Answers what was accepted, then ends the threads.
    pub async fn stop(&self) {
        self.shared.admissions.close();
        if let Some(follower) = self.shared.follower().take() {
            follower.abort();
        }
        self.shared.admissions.drained().await;
        let batcher = self.shared.batcher.clone();
        // Joining blocks; the thread has nothing left to do but end.
        let _ = tokio::task::spawn_blocking(move || batcher.stop()).await;
    }
}

impl Shared {
    pub(super) async fn encoder(&self, which: Which) -> Result<Arc<Loaded>, ServeError> {
        let live = self.live.current();
        match which {
            Which::Live => live.ok_or(ServeError::NotReady),
            Which::Pinned(id) => match live.filter(|live| live.info.id == id) {
                Some(live) => Ok(live),
                None => self.pinned.get(id, self.loader.load(id)).await,
            },
        }
    }

    /// The keys of images in the cache; none where nothing is kept.
    async fn keys(&self, images: &[Bytes], (id, side): (CheckpointId, Side)) -> Vec<Option<Key>> {
        if !self.cache.is_enabled() {
            return vec![None; images.len()];
        }
        let hash = move |images: &[Bytes]| {
            let keys = images.iter().map(|image| (Sha256::digest(image), id, side));
            keys.map(Some).collect::<Vec<_>>()
        };
        if images.iter().map(Bytes::len).sum::<usize>() <= MAX_HASHED_INLINE {
            return hash(images);
        }
        let (owned, count) = (images.to_vec(), images.len());
        let hashed = tokio::task::spawn_blocking(move || hash(&owned)).await;
        // Without keys each image is encoded by itself.
        hashed.unwrap_or_else(|_| vec![None; count])
    }

    /// Decodes on the pool and hands over to the batcher from there: no async thread touches pixels.
    pub(super) async fn encode(
        &self,
        image: Bytes,
        permit: OwnedSemaphorePermit,
        (origin, encoder): (Origin, Arc<LoadedTower>),
    ) -> Result<Row, ServeError> {
        let came = Instant::now();
        let (reply, answer) = oneshot::channel();
        let (batcher, instruments) = (self.batcher.clone(), self.instruments.clone());
        let waiting = Stage::begin(
            &instruments.decode_queue,
            trace_span!(target: STAGE, "queue", stage = "decode"),
        );
        let request = Span::current();
        self.decoders.spawn(origin, image, move |image, limits| {
            if reply.is_closed() {
                return;
            }
            drop(waiting);
            let decoding = Stage::begin(
                &instruments.decode,
                trace_span!(target: STAGE, parent: &request, "decode", bytes = image.len()),
            );
            let decoded = decode(image, limits, encoder.info.side);
            drop(decoding);
            match decoded {
                Ok(pixels) => batcher.push(Job {
                    origin,
                    encoder,
                    pixels,
                    reply,
                    permit,
                    came,
                    waiting: Some(Stage::begin(
                        &instruments.encode_queue,
                        trace_span!(target: STAGE, parent: &request, "queue", stage = "encode"),
                    )),
                    request,
                }),
                Err(source) => {
                    drop(permit);
                    let _ = reply.send(Err(ServeError::Pixels { index: 0, source }));
                }
            }
        });
        answer.await.unwrap_or(Err(ServeError::Stopping))
    }

    fn follower(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the live row at intervals, until the handle is dropped.
async fn follow(shared: Weak<Shared>) {
    while let Some(strong) = shared.upgrade() {
        let pause = Duration::from_millis(strong.config.follow_ms);
        strong.live.tick().await;
        if let Err(error) = strong.canaries.follow().await {
            tracing::debug!(%error, "the canaries cannot be read: those from before count");
        }
        drop(strong);
        tokio::time::sleep(pause).await;
    }
}

/// Adds what only the request knows: the index of the image, and whether the caller chose the checkpoint.
fn in_request(index: usize, which: Which, error: ServeError) -> ServeError {
    match error {
        ServeError::Pixels { source, .. } => ServeError::Pixels { index, source },
        ServeError::NotFinite { id, .. } => ServeError::NotFinite {
            id,
            chosen: which != Which::Live,
        },
        other => other,
    }
}

fn pool(name: &'static str, threads: usize) -> Result<ThreadPool, ServeError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{name}-{index}"))
        .build()
        .map_err(no_threads)
}

fn no_threads(error: impl std::fmt::Display) -> ServeError {
    ServeError::Encode(format!("its threads cannot start: {error}"))
}

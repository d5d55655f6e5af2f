//! The weights of a first checkpoint: those of the starter encoder, of a file, or random ones.

use rayon::ThreadPool;

use super::{
    config::{StartWeights, TrainConfig},
    error::TrainError,
    weights_file::{
        NOT_FINITE, WeightsFile, arrays_of_each, blocking, has_finite_features, invalid,
    },
};
use crate::{
    blobs::Blobs,
    checkpoint::{CheckpointError, Origin, OriginKind, Snapshot, TrainerState},
    db::Db,
    image_store::{ImageError, ImageStore},
};
use bytes::Bytes;
use kith_mcmc::{ChainColumns, ImageKey};
use kith_nn::{Device, Encoder, EncoderConfig, NamedArray, NnError, Towers};
use kith_pixels::Limits;
use kith_weights::{PrincipalComponents, Projection, ProjectionKind, STARTER_WIDTH, Weights};

/// Most stored images whose features are looked at for principal components.
const MAX_IMAGES: usize = 1024;
/// Images that are read, decoded and encoded together.
const PAGE: u32 = 32;

/// What first weights are made from.
#[derive(Clone, Copy)]
pub(super) struct FirstWeights<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) device: &'a Device,
    pub(super) blobs: &'a Blobs,
    pub(super) db: &'a Db,
    /// Where they are computed; `None`: nothing is served yet, so anywhere. Only for a thread that may block.
    pub(super) pool: Option<&'a ThreadPool>,
}

impl FirstWeights<'_> {
    /// The state at step 0 that `start` asks for.
    ///
    /// # Errors
    /// [`TrainError::Invalid`] if a file cannot be used, or a failure of a store or of the device.
    pub(super) async fn choose(&self, start: &StartWeights) -> Result<Snapshot, TrainError> {
        match start {
            StartWeights::Fresh => self.fresh("encoder.start is fresh").await,
            StartWeights::Starter if self.config.encoder.width != STARTER_WIDTH => {
                self.fresh("the starter encoder has another width").await
            }
            StartWeights::Starter => {
                let starter = self.compute(kith_weights::starter).await?;
                let starter = starter.map_err(|error| invalid(&error))?;
                match starter {
                    Some(weights) => self.on_top_of(weights, OriginKind::Starter, None).await,
                    None => {
                        self.fresh("this program was built without the starter encoder")
                            .await
                    }
                }
            }
            StartWeights::File(path) => {
                let (path, device) = (path.clone(), self.device.clone());
                let encoder = self.config.encoder.clone();
                let read = move || WeightsFile::read(&path, &encoder, &device);
                let file = self.compute(read).await??;
                self.file(file).await
            }
        }
    }

    /// The state at step 0 with the weights of a file.
    ///
    /// # Errors
    /// As [`FirstWeights::choose`].
    pub(super) async fn file(&self, file: WeightsFile) -> Result<Snapshot, TrainError> {
        let WeightsFile { weights, name } = file;
        self.on_top_of(weights, OriginKind::File, Some(name)).await
    }

    /// Runs `work` off the async threads.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TrainError> {
        match self.pool {
            Some(pool) => Ok(pool.install(work)),
            None => blocking(work).await,
        }
    }

    async fn fresh(&self, reason: &'static str) -> Result<Snapshot, TrainError> {
        let (config, device) = (self.config.clone(), self.device.clone());
        let made = self.compute(move || {
            let towers =
                Towers::fresh(&config.encoder, config.run.seed, &device)?.with_whitening_stems()?;
            let origin = origin(OriginKind::Fresh);
            Ok::<_, NnError>(at_step_0(&config, towers.to_arrays()?, origin))
        });
        let snapshot = made.await?.map_err(CheckpointError::from)?;
        let width = snapshot.encoder.width;
        tracing::info!(width, reason, "the first weights are random");
        Ok(snapshot)
    }

    /// The network of `weights`, for each tower, with a head that leaves its features as they are.
    async fn on_top_of(
        &self,
        weights: Weights,
        kind: OriginKind,
        file: Option<String>,
    ) -> Result<Snapshot, TrainError> {
        let mut projection = weights.projection(self.config.encoder.dim);
        if projection.kind == ProjectionKind::Orthogonal
            && let Some(principal) = self.principal(&weights).await?
        {
            projection = principal;
        }
        let origin = Origin {
            file,
            sha256: Some(weights.sha256().to_owned()),
            projection: Some(projection.to_string()),
            dropped: weights.dropped().to_vec(),
            ..origin(kind)
        };
        let (config, device) = (self.config.encoder.clone(), self.device.clone());
        let made = self.compute(move || {
            let arrays = arrays_of_each(weights, projection, &config);
            // The device may refuse them, too.
            let finite = has_finite_features(&config, &arrays, &device)?;
            Ok::<_, NnError>((arrays, finite))
        });
        let (arrays, finite) = made.await?.map_err(CheckpointError::from)?;
        if !finite {
            return Err(invalid(&NOT_FINITE));
        }
        let (projection, dropped) = (origin.projection.as_deref(), origin.dropped.join(", "));
        tracing::info!(
            ?kind,
            file = origin.file.as_deref(),
            sha256 = origin.sha256.as_deref(),
            embedding = projection,
            dropped,
            "the first weights are ready"
        );
        Ok(at_step_0(self.config, arrays, origin))
    }

    /// The principal components of stored images' features; `None`: too few images are stored.
    async fn principal(&self, weights: &Weights) -> Result<Option<Projection>, TrainError> {
        let dim = self.config.encoder.dim;
        let stored = self
            .db
            .count_images()
            .await
            .map_err(CheckpointError::from)?;
        if stored < dim as u64 {
            return Ok(None);
        }
        let config = self.config.encoder.clone();
        let (arrays, device) = (
            weights.arrays(&weights.projection(dim)),
            self.device.clone(),
        );
        let opened = move || Encoder::from_arrays(&config, &arrays, &device);
        let encoder = self.compute(opened).await?;
        let mut encoder = encoder.map_err(CheckpointError::from)?;
        let mut components = PrincipalComponents::new(weights.features());
        let mut after = ImageKey(0);
        while components.images() < MAX_IMAGES {
            let Some(page) = self.images_after(&mut after).await? else {
                break;
            };
            let (limits, config) = (self.config.limits.clone(), self.config.encoder.clone());
            let work = move || {
                let added = add_features(&mut components, &encoder, &config, &page, &limits);
                (components, encoder, added)
            };
            let added;
            (components, encoder, added) = self.compute(work).await?;
            added.map_err(CheckpointError::from)?;
        }
        self.compute(move || components.projection(dim)).await
    }

    /// The next images that can be read; `None`: there are no more.
    async fn images_after(&self, after: &mut ImageKey) -> Result<Option<Vec<Bytes>>, TrainError> {
        let rows = self.db.images_after(*after, PAGE, Some(false)).await;
        let rows = rows.map_err(CheckpointError::from)?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        *after = last.key;
        let store = ImageStore::new(self.blobs.clone(), self.db.clone());
        let mut images = Vec::new();
        for row in rows {
            match store.read(row.sha256).await {
                Ok(bytes) => images.extend(bytes),
                // Listed and logged when it was found.
                Err(ImageError::Damaged { .. }) => {}
                Err(ImageError::Blobs(error)) => return Err(CheckpointError::from(error).into()),
                Err(ImageError::Db(error)) => return Err(CheckpointError::from(error).into()),
            }
        }
        Ok(Some(images))
    }
}

/// A state at step 0 with the weights in `model`.
fn at_step_0(config: &TrainConfig, model: Vec<NamedArray>, origin: Origin) -> Snapshot {
    Snapshot {
        encoder: config.encoder.clone(),
        model,
        // Moments begin at zero when training does. Written down they would be two thirds of the checkpoint.
        optimizer: Vec::new(),
        chains: ChainColumns::default(),
        trainer: TrainerState::new(0, config.run.seed),
        origin: Some(origin),
    }
}

/// Adds the features of those `images` that can be decoded.
fn add_features(
    components: &mut PrincipalComponents,
    encoder: &Encoder,
    config: &EncoderConfig,
    images: &[Bytes],
    limits: &Limits,
) -> Result<(), NnError> {
    let decoded = images.iter().filter_map(|bytes| {
        let image = kith_pixels::decode(bytes, limits).ok()?;
        Some(kith_pixels::fit(&image, config.side))
    });
    let pixels: Vec<f32> = decoded.flatten().collect();
    if !pixels.is_empty() {
        components.add(&encoder.forward(&pixels)?.hidden.data);
    }
    Ok(())
}

pub(super) fn origin(kind: OriginKind) -> Origin {
    Origin {
        kind,
        file: None,
        sha256: None,
        projection: None,
        dropped: Vec::new(),
        step: 0,
    }
}

//! Loads a checkpoint for serving: reads and verifies it, builds its encoders and warms them up. A loaded encoder never changes.

use std::sync::Arc;

use rayon::ThreadPool;
use tokio::runtime::Handle;

use super::{ModelInfo, Row, ServeError, quantize::default_range};
use crate::{
    checkpoint::{Checkpoints, InUse, Model, probe},
    types::CheckpointId,
};
use kith_mcmc::Side;
use kith_nn::{Device, Encoder, Features, NnError, Precision};

/// What encodes a batch: an encoder, or a stand-in in tests.
pub(super) trait Network: Send + Sync {
    /// Each of `images`: `[side, side, 3]`.
    fn forward(&self, images: &[&[f32]]) -> Result<Features, NnError>;
}

impl Network for Encoder {
    fn forward(&self, images: &[&[f32]]) -> Result<Features, NnError> {
        self.forward_all(images)
    }
}

/// One checkpoint's encoders.
pub(super) struct Loaded {
    pub(super) info: ModelInfo,
    /// One for both sides, or the anchor's and the positive's.
    towers: Vec<Arc<LoadedTower>>,
}

/// The encoder of one side, or of both.
pub(super) struct LoadedTower {
    pub(super) info: ModelInfo,
    /// The side that it is named after.
    pub(super) side: Side,
    pub(super) network: Box<dyn Network>,
    /// Keeps the checkpoint from being pruned; tests have none.
    pub(super) _in_use: Option<Arc<InUse>>,
}

impl Loaded {
    /// The encoder of `side`.
    pub(super) fn tower(&self, side: Side) -> &Arc<LoadedTower> {
        &self.towers[side.index().min(self.towers.len() - 1)]
    }
}

/// Loads checkpoints, away from the async threads.
#[derive(Clone)]
pub(super) struct Loader {
    pub(super) checkpoints: Checkpoints,
    pub(super) device: Device,
    pub(super) precision: Precision,
    /// Where the warm-up pass runs: the pool that will encode.
    pub(super) pool: Arc<ThreadPool>,
}

impl Loader {
    /// Reads, verifies, builds and warms up a checkpoint.
    pub(super) async fn load(&self, id: CheckpointId) -> Result<Arc<Loaded>, ServeError> {
        let loader = self.clone();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let model = runtime.block_on(loader.checkpoints.load_model(id))?;
            loader.build(&model)
        })
        .await
        .unwrap_or_else(|panic| Err(ServeError::Encode(format!("loading {id}: {panic}"))))
    }

    /// The first passes pay for whatever a device sets up lazily, so that no request does: a GPU records its second.
    /// A checkpoint whose vectors are not finite is refused.
    fn build(&self, model: &Model) -> Result<Arc<Loaded>, ServeError> {
        let open = || model.open(&self.device, self.precision);
        let towers = self.pool.install(open)?;
        let side = model.encoder.side;
        let info = ModelInfo {
            id: model.id,
            step: model.step,
            dim: model.encoder.dim,
            hidden: 8 * model.encoder.width,
            side,
            towers: model.encoder.towers,
            range: model
                .range
                .unwrap_or_else(|| default_range(model.encoder.dim)),
        };
        let probe = probe(side);
        for (_, encoder) in towers.each().chain(towers.each()) {
            let found = self.pool.install(|| encoder.forward(&probe))?;
            let row = Row {
                embedding: found.embedding.data,
                hidden: found.hidden.data,
            };
            // Whoever has it loaded has chosen it.
            let refused = |_| ServeError::NotFinite {
                id: model.id,
                chosen: true,
            };
            row.finite(&info).map_err(refused)?;
        }
        let in_use = Arc::new(self.checkpoints.begin_use(model.id));
        let tower = |(side, encoder)| {
            Arc::new(LoadedTower {
                info,
                side,
                network: Box::new(encoder),
                _in_use: Some(in_use.clone()),
            })
        };
        let towers = Side::BOTH.into_iter().zip(towers.into_each()).map(tower);
        Ok(Arc::new(Loaded {
            info,
            towers: towers.collect(),
        }))
    }
}

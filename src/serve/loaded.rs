//! Loads a checkpoint for serving: reads and verifies it, builds its encoder and warms it up. A loaded encoder never changes.

use std::sync::Arc;

use rayon::ThreadPool;
use tokio::runtime::Handle;

use super::{ModelInfo, Row, ServeError, quantize::default_range};
use crate::{
    checkpoint::{Checkpoints, InUse, Model, probe},
    types::CheckpointId,
};
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

/// One checkpoint's encoder.
pub(super) struct Loaded {
    pub(super) info: ModelInfo,
    pub(super) network: Box<dyn Network>,
    /// Keeps the checkpoint from being pruned; tests have none.
    pub(super) _in_use: Option<InUse>,
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
        let encoder = self.pool.install(open)?;
        let side = model.encoder.side;
        let info = ModelInfo {
            id: model.id,
            step: model.step,
            dim: model.encoder.dim,
            hidden: 8 * model.encoder.width,
            side,
            range: model
                .range
                .unwrap_or_else(|| default_range(model.encoder.dim)),
        };
        let probe = probe(side);
        for _ in 0..2 {
            let Features { embedding, hidden } = self.pool.install(|| encoder.forward(&probe))?;
            let row = Row {
                embedding: embedding.data,
                hidden: hidden.data,
            };
            // Whoever has it loaded has chosen it.
            let refused = |_| ServeError::NotFinite {
                id: model.id,
                chosen: true,
            };
            row.finite(&info).map_err(refused)?;
        }
        Ok(Arc::new(Loaded {
            info,
            network: Box::new(encoder),
            _in_use: Some(self.checkpoints.begin_use(model.id)),
        }))
    }
}

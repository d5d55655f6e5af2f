//! The state that training starts from: the newest checkpoint, or fresh weights that become checkpoint 0.

use super::{config::TrainConfig, context::Context, error::TrainError};
use crate::{
    checkpoint::{CheckpointError, Event, Label, Snapshot, TrainerState},
    types::CheckpointId,
};
use kith_mcmc::ChainColumns;
use kith_nn::{Device, Encoder, NnError, Optimizer};

/// A state to start a run from.
pub(super) struct Start {
    /// The checkpoint it was read from; `None`: weights that no checkpoint holds yet.
    pub(super) parent: Option<CheckpointId>,
    pub(super) snapshot: Snapshot,
}

/// Opens the newest checkpoint that verifies, or makes checkpoint 0. Afterwards the live row names a checkpoint that verifies.
pub(super) async fn open(context: &Context) -> Result<(CheckpointId, Start), TrainError> {
    let found = match context.checkpoints.newest().await {
        Err(error @ CheckpointError::AllLost { .. }) if context.config.accept_loss => {
            tracing::error!(%error, "fresh weights take the place of what is lost, as storage.accept_loss says");
            None
        }
        found => found?,
    };
    let (id, snapshot) = match found {
        Some((id, snapshot)) => {
            check_shape(context, id, &snapshot)?;
            let chains = snapshot.chains.anchor.len();
            let step = snapshot.trainer.step;
            tracing::info!(checkpoint = %id, step, chains, "resumed");
            (id, snapshot)
        }
        None => create_first(context).await?,
    };
    ensure_live(context, id).await?;
    let start = Start {
        parent: Some(id),
        snapshot,
    };
    Ok((id, start))
}

fn check_shape(context: &Context, id: CheckpointId, snapshot: &Snapshot) -> Result<(), TrainError> {
    let (found, wanted) = (&snapshot.encoder, &context.config.encoder);
    if found == wanted {
        return Ok(());
    }
    Err(TrainError::Invalid(format!(
        "checkpoint {id} holds an encoder of width {}, side {}, dim {}, but the settings ask for width {}, side {}, dim {}: \
         set [encoder] to the checkpoint's values, or start with another data folder",
        found.width, found.side, found.dim, wanted.width, wanted.side, wanted.dim
    )))
}

/// Makes checkpoint 0: every vector that is served names a checkpoint, the first ones too.
async fn create_first(context: &Context) -> Result<(CheckpointId, Snapshot), TrainError> {
    let (config, device) = (context.config.clone(), context.device.clone());
    let made = tokio::task::spawn_blocking(move || fresh(&config, config.run.seed, &device));
    let snapshot = match made.await {
        Ok(made) => made.map_err(CheckpointError::from)?,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Err(TrainError::Stopped),
    };
    let label = Label::new(None);
    context.checkpoints.begin(&label, 0).await?;
    context
        .checkpoints
        .write(&label, snapshot.clone(), None)
        .await?;
    tracing::info!(checkpoint = %label.id, "started from fresh weights");
    Ok((label.id, snapshot))
}

/// Fresh weights from `seed`, at step 0.
pub(super) fn fresh(config: &TrainConfig, seed: u64, device: &Device) -> Result<Snapshot, NnError> {
    let encoder = Encoder::fresh(&config.encoder, seed, device)?;
    let optimizer = Optimizer::new(&config.optimizer, &encoder)?;
    Ok(Snapshot {
        encoder: config.encoder.clone(),
        model: encoder.to_arrays()?,
        optimizer: optimizer.to_arrays()?,
        chains: ChainColumns::default(),
        trainer: TrainerState::new(0, seed),
    })
}

/// Ensures that a checkpoint that loads is live: if the live one does not, the best that is known takes its place, or `newest`, which loads.
async fn ensure_live(context: &Context, newest: CheckpointId) -> Result<(), TrainError> {
    let live = context.db.live_checkpoint().await;
    let live_loads = match live.map_err(CheckpointError::from)? {
        None => false,
        Some(row) if row.id == newest => true,
        Some(row) => match context.checkpoints.load_model(row.id).await {
            Ok(_) => true,
            Err(error @ (CheckpointError::Blobs(_) | CheckpointError::Db(_))) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::error!(damaged = %row.id, %error, "the live checkpoint does not load: another serves in its place");
                false
            }
        },
    };
    let event = Event::Started { newest, live_loads };
    Ok(context.checkpoints.decide(&event).await.map(drop)?)
}

//! The state that training starts from: the newest checkpoint, or first weights that become checkpoint 0.

use super::{
    config::TrainConfig,
    context::Context,
    error::TrainError,
    first_weights::{FirstWeights, origin},
    stores::Stores,
    weights_file::WeightsFile,
};
use crate::{
    checkpoint::{CheckpointError, Checkpoints, Event, Label, Origin, OriginKind, Snapshot},
    db::Db,
    types::CheckpointId,
};
use kith_nn::{Device, EncoderConfig};

/// A state to start a run from.
pub(super) struct Start {
    /// The checkpoint it was read from; `None`: weights that no checkpoint holds yet.
    pub(super) parent: Option<CheckpointId>,
    pub(super) snapshot: Snapshot,
    /// Whether a roll-back went back to it.
    pub(super) is_restored: bool,
}

/// Opens the newest checkpoint that verifies, or makes checkpoint 0. Afterwards the live row names a checkpoint that verifies.
pub(super) async fn open(context: &Context) -> Result<(CheckpointId, Start), TrainError> {
    let found = newest(&context.checkpoints, context.config.accept_loss).await?;
    let (id, snapshot) = match found {
        Some((id, snapshot)) => {
            check_shape(&context.config.encoder, id, &snapshot.encoder)?;
            let chains = snapshot.chains.anchor.len();
            let step = snapshot.trainer.step;
            tracing::info!(checkpoint = %id, step, chains, "resumed");
            (id, snapshot)
        }
        None => create_first(context).await?,
    };
    ensure_live(&context.db, &context.checkpoints, id).await?;
    let start = Start {
        parent: Some(id),
        snapshot,
        is_restored: false,
    };
    Ok((id, start))
}

fn check_shape(
    wanted: &EncoderConfig,
    id: CheckpointId,
    found: &EncoderConfig,
) -> Result<(), TrainError> {
    if found == wanted {
        return Ok(());
    }
    Err(TrainError::Invalid(format!(
        "checkpoint {id} has width {}, side {}, dim {}, towers {}, but the settings ask for width {}, side {}, dim {}, towers {}: \
         set [encoder] to the checkpoint's values, or start with another data folder",
        found.width,
        found.side,
        found.dim,
        found.towers,
        wanted.width,
        wanted.side,
        wanted.dim,
        wanted.towers
    )))
}

/// The newest checkpoint that loads; `None`: there is none, or all are lost and `accept_loss` says to go on without them.
async fn newest(
    checkpoints: &Checkpoints,
    accept_loss: bool,
) -> Result<Option<(CheckpointId, Snapshot)>, CheckpointError> {
    match checkpoints.newest().await {
        Err(error @ CheckpointError::AllLost { .. }) if accept_loss => {
            tracing::error!(%error, "first weights take the place of what is lost, as storage.accept_loss says");
            Ok(None)
        }
        found => found,
    }
}

/// Makes checkpoint 0: every vector that is served names a checkpoint, the first ones too.
async fn create_first(context: &Context) -> Result<(CheckpointId, Snapshot), TrainError> {
    let first = context.first_weights(None);
    let snapshot = first.choose(&context.config.start).await?;
    let id = write(&context.checkpoints, &snapshot).await?;
    tracing::info!(checkpoint = %id, "checkpoint 0 is written");
    Ok((id, snapshot))
}

/// Writes a checkpoint of first weights.
async fn write(checkpoints: &Checkpoints, snapshot: &Snapshot) -> Result<CheckpointId, TrainError> {
    let label = Label::new(None);
    checkpoints.begin(&label, snapshot.trainer.step).await?;
    checkpoints.write(&label, snapshot.clone(), None).await?;
    Ok(label.id)
}

/// Makes a checkpoint of the weights in a file, from which training goes on at the next start: checkpoint 0 if the data folder has none.
/// Nobody else may use the folder. Training that gave up begins again.
///
/// # Errors
/// [`TrainError::Invalid`] if a checkpoint of the folder has another shape than the settings; [`CheckpointError::AllLost`], unless
/// `storage.accept_loss` is set; or a failure of a store.
pub async fn import(
    config: &TrainConfig,
    device: &Device,
    stores: &Stores,
    file: WeightsFile,
) -> Result<(CheckpointId, Origin), TrainError> {
    let Stores {
        blobs,
        db,
        checkpoints,
        ..
    } = stores;
    let newest = newest(checkpoints, config.accept_loss).await?;
    if let Some((id, newest)) = &newest {
        check_shape(&config.encoder, *id, &newest.encoder)?;
    }
    let first = FirstWeights {
        config,
        device,
        blobs,
        db,
        pool: None,
    };
    let mut snapshot = first.file(file).await?;
    // Steps count on, so that the series of training keeps its order.
    snapshot.trainer.step = newest.map_or(0, |(_, newest)| newest.trainer.step);
    let origin = snapshot.origin.get_or_insert(origin(OriginKind::File));
    origin.step = snapshot.trainer.step;
    let origin = origin.clone();
    let id = write(checkpoints, &snapshot).await?;
    ensure_live(db, checkpoints, id).await?;
    // What made training give up was learned by other weights.
    let cleared = db.set_training_given_up(None).await;
    cleared.map_err(CheckpointError::from)?;
    Ok((id, origin))
}

/// Ensures that a checkpoint that loads is live: if the live one does not, the best that is known takes its place, or `newest`, which loads.
async fn ensure_live(
    db: &Db,
    checkpoints: &Checkpoints,
    newest: CheckpointId,
) -> Result<(), TrainError> {
    let live = db.live_checkpoint().await;
    let live_loads = match live.map_err(CheckpointError::from)? {
        None => false,
        Some(row) if row.id == newest => true,
        Some(row) => match checkpoints.load_model(row.id).await {
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
    Ok(checkpoints.decide(&event).await.map(drop)?)
}

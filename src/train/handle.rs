//! The handle to the trainer, whose methods send commands to its thread.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::{
    config::TrainConfig,
    context::Context,
    control::{COMMAND_QUEUE, Command, Control, Request},
    error::{TrainError, TrainFailure},
    origin,
    pair_effect::PairEffect,
    status::{SharedStatus, TrainingStatus},
    stores::Stores,
    supervisor,
};
use crate::{
    checkpoint::CheckpointError,
    db::{CheckpointRow, CheckpointStatus, Db},
    foreground::Foreground,
    types::CheckpointId,
};
use kith_learn::{LearnConfig, ObjectiveKind};
use kith_mcmc::Estimator;
use kith_nn::Device;

/// How often a checkpoint's row is read while it is being written, should the notification get lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Handle to the trainer; cheap to clone. When the last one is dropped, the trainer stops.
#[derive(Clone)]
pub struct Trainer {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::Sender<Command>,
    status: Arc<SharedStatus>,
    pair_effect: PairEffect,
    db: Db,
    foreground: Foreground,
    enabled: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Trainer {
    /// Resumes from the newest complete checkpoint, or starts fresh: writes checkpoint 0 and promotes it. Returns when that is done
    /// (so that serving can start), with the trainer's thread running behind.
    ///
    /// Fails if the newest checkpoint holds an encoder of another shape than the settings'. Needs tokio's multi-threaded runtime:
    /// the trainer's threads reach the stores through it.
    pub async fn start(
        config: TrainConfig,
        device: Device,
        stores: Stores,
    ) -> Result<Self, TrainError> {
        check_batch(config.run.batch)?;
        let Stores {
            blobs,
            db,
            checkpoints,
            foreground,
            metrics,
        } = stores;
        let status = Arc::new(SharedStatus::new(
            objective(&config.learn),
            checkpoints.events().clone(),
        ));
        let checkpoints = checkpoints.with_policy(config.policy.clone());
        let enabled = config.run.enabled;
        let choices = db.training_choices().await;
        let choices = choices.map_err(CheckpointError::from)?;
        let context = Arc::new(Context {
            config,
            device,
            blobs,
            db: db.clone(),
            checkpoints,
            status: status.clone(),
            pair_effect: PairEffect::new(&metrics),
            foreground: foreground.clone(),
            runtime: Handle::current(),
        });
        let (id, start) = origin::open(&context).await?;
        status.update(|status| {
            status.step = start.snapshot.trainer.step;
            status.epoch = start.snapshot.trainer.epoch;
            status.resumed_from = Some(id);
            status.set_learning_rate = choices.learning_rate;
        });
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let control = Control::new(queue, Handle::current(), choices);
        let pool = context.pool("kith-learn", context.config.run.threads);
        let pool =
            pool.map_err(|failure: TrainFailure| TrainError::Invalid(failure.to_string()))?;
        let body = {
            let context = context.clone();
            move || supervisor::train(&context, &pool, control, start)
        };
        let thread = context
            .thread("kith-train", body)
            .map_err(|error| TrainError::Invalid(error.to_string()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                commands,
                status,
                pair_effect: context.pair_effect.clone(),
                db,
                foreground,
                enabled,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// What it is doing.
    pub fn status(&self) -> TrainingStatus {
        self.shared.status.current()
    }

    /// How soon posted pairs have an effect: it is to be told what serves.
    pub fn pair_effect(&self) -> &PairEffect {
        &self.shared.pair_effect
    }

    /// Pauses or resumes, beyond restarts; returns once the trainer has applied it (a running step is finished first). Resuming also starts
    /// a trainer that gave up: from the best checkpoint.
    pub async fn set_paused(&self, paused: bool) -> Result<(), TrainError> {
        self.check_enabled()?;
        let kept = self.shared.db.set_training_paused(paused).await;
        kept.map_err(CheckpointError::from)?;
        self.ask(|done| Command::Pause(paused, done)).await
    }

    /// Overrides the schedule's base rate, beyond restarts; `None`: the schedule's holds again.
    pub async fn set_learning_rate(&self, rate: Option<f32>) -> Result<(), TrainError> {
        self.check_enabled()?;
        if let Some(rate) = rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            let reason = format!("learning_rate must be a positive number, not {rate}");
            return Err(TrainError::Invalid(reason));
        }
        let kept = self.shared.db.set_learning_rate(rate).await;
        kept.map_err(CheckpointError::from)?;
        self.ask(|done| Command::Rate(rate, done)).await?;
        // While training rests nothing else shows it.
        let show = |status: &mut TrainingStatus| status.set_learning_rate = rate;
        self.shared.status.update(show);
        Ok(())
    }

    /// Asks for a snapshot at the next step boundary and returns its id once it is registered as `writing`. Several at once share one
    /// snapshot of the same step.
    pub async fn snapshot(&self, note: Option<String>) -> Result<CheckpointId, TrainError> {
        self.ask(|answer| Command::Snapshot(Request { note, answer }))
            .await?
    }

    /// Waits until a snapshot is complete.
    ///
    /// # Errors
    /// [`TrainError::Unwritten`] if it could not be written.
    pub async fn written(&self, id: CheckpointId) -> Result<CheckpointRow, TrainError> {
        let _boost = self.shared.foreground.boost();
        let mut writes = self.shared.status.subscribe_writes();
        loop {
            writes.mark_unchanged();
            let row = self.shared.db.checkpoint(id).await;
            let row = row.map_err(CheckpointError::from)?;
            let row = row.ok_or(CheckpointError::Unknown(id))?;
            if row.status == CheckpointStatus::Complete {
                return Ok(row);
            }
            // On a full disk the row cannot be changed, and otherwise it changes a moment earlier: only the status is certain.
            if let Some(failure) = self.shared.status.write_failure(id) {
                return Err(TrainError::Unwritten { id, failure });
            }
            if self.shared.commands.is_closed() {
                return Err(TrainError::Stopped);
            }
            // Notified or timed out: the row is read again.
            let _ = tokio::time::timeout(POLL_INTERVAL, writes.changed()).await;
        }
    }

    /// Finishes the step, takes a last snapshot if steps were made since the newest, ends all threads. Stopping twice is no error of its own.
    ///
    /// # Errors
    /// [`TrainError::Unsaved`] if that snapshot could not be written.
    pub async fn stop(&self) -> Result<(), TrainError> {
        // When the thread has ended already there is only the joining left.
        let _ = self.ask(Command::Stop).await;
        let thread = self
            .shared
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !joined.unwrap_or(false) {
                tracing::error!("the trainer's thread panicked");
            }
        }
        self.shared
            .status
            .unsaved()
            .map_or(Ok(()), |why| Err(TrainError::Unsaved(why)))
    }

    fn check_enabled(&self) -> Result<(), TrainError> {
        if self.shared.enabled {
            Ok(())
        } else {
            Err(TrainError::Disabled)
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, TrainError> {
        let _boost = self.shared.foreground.boost();
        let (answer, answered) = oneshot::channel();
        let sent = self.shared.commands.send(command(answer)).await;
        sent.map_err(|_| TrainError::Stopped)?;
        answered.await.map_err(|_| TrainError::Stopped)
    }
}

fn check_batch(batch: usize) -> Result<(), TrainError> {
    if batch >= 2 {
        return Ok(());
    }
    let reason = "training.batch must be at least 2: a pair's negatives are the other pairs";
    Err(TrainError::Invalid(reason.to_owned()))
}

/// The objective as the status names it.
fn objective(config: &LearnConfig) -> String {
    match (config.objective, config.sampler.estimator) {
        (ObjectiveKind::InfoNce, _) => "infonce".to_owned(),
        (ObjectiveKind::SogClr, _) => "sogclr".to_owned(),
        (ObjectiveKind::Scent, _) => "scent".to_owned(),
        (ObjectiveKind::NeuClip, _) => "neuclip".to_owned(),
        (ObjectiveKind::NegativeCache, _) => "negative_cache".to_owned(),
        (ObjectiveKind::Exact, _) => "exact".to_owned(),
        (ObjectiveKind::Emc2, Estimator::Subset) => "emc2 (subset)".to_owned(),
        (ObjectiveKind::Emc2, Estimator::Walk) => "emc2 (walk)".to_owned(),
    }
}

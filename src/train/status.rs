//! What the trainer shows of itself: the status that callers read, and the board on which its threads write it.
//! Must never know: how training works.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::types::CheckpointId;

/// What the trainer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainingState {
    /// Steps are made.
    Running,
    /// A caller paused it.
    Paused,
    /// It waits for `min_pairs`, or is disabled, or reached `max_steps`; see `waiting_for`.
    Waiting,
    /// It failed; see `last_error`. It retries after a back-off unless the error says not.
    Failed,
}

/// What `GET /v1/training` answers, apart from the checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingStatus {
    /// What it is doing.
    pub state: TrainingState,
    /// What `waiting` waits for.
    pub waiting_for: Option<String>,
    /// Steps done.
    pub step: u64,
    /// Epoch in progress.
    pub epoch: u64,
    /// `emc2 (subset)` …
    pub objective: String,
    /// Smoothed loss.
    pub loss: Option<f32>,
    /// Smoothed estimate of the global loss.
    pub global_loss_estimate: Option<f32>,
    /// Smoothed acceptance rate.
    pub acceptance_rate: Option<f32>,
    /// Chains in the table.
    pub chains: u64,
    /// Pairs trained on.
    pub pairs: u64,
    /// Images trained on.
    pub images: u64,
    /// Steps per second, smoothed.
    pub steps_per_second: f32,
    /// Training images encoded per second, carried negatives included.
    pub images_per_second: f32,
    /// Rate of the last step.
    pub learning_rate: f32,
    /// Steps skipped for a loss or gradient that was not finite.
    pub skipped: u64,
    /// Recoveries from collapse.
    pub recoveries: u64,
    /// The last failure or refusal.
    pub last_error: Option<String>,
    /// The checkpoint that training started or resumed from.
    pub resumed_from: Option<CheckpointId>,
}

/// A verdict of the snapshotter that the loop must act on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alarm {
    /// Which stretch of training it is about; one from before a recovery is void.
    pub(super) lineage: u64,
    /// Step of the checkpoint that was judged.
    pub(super) step: u64,
    /// What is wrong with it.
    pub(super) why: String,
}

/// What the trainer's threads tell each other and their callers.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<TrainingStatus>,
    alarm: Mutex<Option<Alarm>>,
    /// Counts checkpoints whose writing ended, well or not.
    written: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(objective: String) -> Self {
        Self {
            status: Mutex::new(TrainingStatus::at_start(objective)),
            alarm: Mutex::default(),
            written: watch::Sender::new(0),
        }
    }

    pub(super) fn status(&self) -> TrainingStatus {
        locked(&self.status).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut TrainingStatus)) {
        change(&mut locked(&self.status));
    }

    /// Raises an alarm; a newer one takes the place of one not yet seen.
    pub(super) fn raise(&self, alarm: Alarm) {
        *locked(&self.alarm) = Some(alarm);
    }

    pub(super) fn alarm(&self) -> Option<Alarm> {
        locked(&self.alarm).take()
    }

    /// A checkpoint's writing ended: whoever waits looks at its row.
    pub(super) fn note_written(&self) {
        self.written.send_modify(|count| *count += 1);
    }

    pub(super) fn writes(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }
}

impl TrainingStatus {
    fn at_start(objective: String) -> Self {
        Self {
            state: TrainingState::Waiting,
            waiting_for: Some("the trainer to start".to_owned()),
            step: 0,
            epoch: 0,
            objective,
            loss: None,
            global_loss_estimate: None,
            acceptance_rate: None,
            chains: 0,
            pairs: 0,
            images: 0,
            steps_per_second: 0.0,
            images_per_second: 0.0,
            learning_rate: 0.0,
            skipped: 0,
            recoveries: 0,
            last_error: None,
            resumed_from: None,
        }
    }
}

/// The values behind these locks are whole after any statement, so a panic elsewhere does not spoil them.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

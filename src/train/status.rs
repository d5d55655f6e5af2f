//! What the trainer shows of itself: the status that callers read, and the status on which its threads write it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::{
    alarms::{Alarm, AlarmKind},
    error::WriteFailure,
};
use crate::{
    db::Verdict,
    events::{Events, Kind},
    types::CheckpointId,
};
use kith_nn::StageNorms;

/// What the trainer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
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
    /// Smoothed mean age of the visited chains' states: steps since their scores were taken.
    pub chain_age: Option<f32>,
    /// The largest of these ages in the last step.
    pub max_chain_age: u32,
    /// Smoothed mean of the visited chains' stored scores, less the scores of the same images now. Chains move to views that score high,
    /// so some units are normal; if it keeps rising, chains are held by old scores.
    pub stored_minus_fresh: Option<f32>,
    /// L2 norms of the gradient by stage, before clipping, at the last step at which they were measured (one in 16).
    pub gradient_norms: Option<StageNorms>,
    /// Smoothed share of carried negatives among the images of a step.
    pub carried_share: Option<f32>,
    /// Chains in the table.
    pub chains: u64,
    /// Pairs trained on.
    pub pairs: u64,
    /// Those of them that are recent (`training.recent_steps`).
    pub recent_pairs: u64,
    /// Images trained on.
    pub images: u64,
    /// Pixels across the views of the next step: random weights see small ones first (`schedule.resize_steps`).
    pub view_side: u64,
    /// Steps per second, smoothed.
    pub steps_per_second: f32,
    /// Training images encoded per second, carried negatives included.
    pub images_per_second: f32,
    /// Rate of the next step.
    pub learning_rate: f32,
    /// The base rate that a caller has set, which goes before `schedule.learning_rate`; null: none has.
    pub set_learning_rate: Option<f32>,
    /// Steps skipped for a loss, gradient or embedding that was not finite, or for want of the GPU's memory.
    pub skipped: u64,
    /// Recoveries from collapse, or from a run of worse candidates, since this process started.
    pub recoveries: u64,
    /// Factor that recoveries have left of the learning rate.
    pub rate_scale: f32,
    /// What is wrong with learning now, each with what to do about it.
    pub alarms: Vec<Alarm>,
    /// The last failure or refusal, until training writes a snapshot after it, or has judged the checkpoint that it was about.
    pub last_error: Option<String>,
    /// The checkpoint that training started or resumed from.
    pub resumed_from: Option<CheckpointId>,
}

/// The verdict on a checkpoint, for the training loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    /// The run that the checkpoint comes from: a verdict on an earlier run is ignored, but that on what a run began with.
    pub(super) run_id: u64,
    /// Which checkpoint.
    pub(super) checkpoint: CheckpointId,
    /// The verdict.
    pub(super) verdict: CandidateVerdict,
}

/// The verdict on a candidate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CandidateVerdict {
    /// It is better than what served.
    Better,
    /// It is neither better nor worse, as far as can be told.
    Undecided,
    /// It is worse than the best one, for this reason.
    Worse(String),
    /// It collapsed, or is not finite, for this reason.
    Collapsed(String),
}

impl CandidateVerdict {
    /// What `verdict`, which was given for the reason `why`, means for training.
    pub(super) fn new(verdict: Verdict, why: &str) -> Self {
        match verdict {
            Verdict::Better => Self::Better,
            Verdict::Worse => Self::Worse(why.to_owned()),
            Verdict::Collapsed => Self::Collapsed(why.to_owned()),
            Verdict::Undecided | Verdict::Untested | Verdict::Untrained | Verdict::Damaged => {
                Self::Undecided
            }
        }
    }
}

/// Most judgements that wait for the loop. One snapshot is judged at a time, and the loop reads them after every step.
const MAX_JUDGEMENTS: usize = 64;

/// Most failures that are remembered for callers. At most two snapshots are written or wait at once.
const MAX_UNWRITTEN: usize = 16;

/// State shared by the trainer's threads and its callers.
#[derive(Debug)]
pub(super) struct SharedStatus {
    /// Where changes of the state and errors are told.
    events: Events,
    status: Mutex<TrainingStatus>,
    judgements: Mutex<VecDeque<Judgement>>,
    /// Why the last snapshot of a stop could not be written, if it could not.
    unsaved: Mutex<Option<String>>,
    /// The newest checkpoints that could not be written, oldest first.
    unwritten: Mutex<VecDeque<(CheckpointId, WriteFailure)>>,
    /// Counts checkpoints whose writing ended, well or not.
    written: watch::Sender<u64>,
}

impl SharedStatus {
    pub(super) fn new(objective: String, events: Events) -> Self {
        Self {
            events,
            status: Mutex::new(TrainingStatus::new(objective)),
            judgements: Mutex::default(),
            unsaved: Mutex::default(),
            unwritten: Mutex::default(),
            written: watch::Sender::new(0),
        }
    }

    pub(super) fn current(&self) -> TrainingStatus {
        locked(&self.status).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut TrainingStatus)) {
        let mut status = locked(&self.status);
        let before = (
            status.state,
            status.waiting_for.clone(),
            status.last_error.clone(),
        );
        change(&mut status);
        let TrainingStatus {
            state,
            step,
            waiting_for,
            last_error,
            ..
        } = &*status;
        if (before.0, &before.1) != (*state, waiting_for) {
            let data = json!({"state": state, "waiting_for": waiting_for, "step": step});
            self.events.publish(Kind::Training, data);
        }
        if before.2 != *last_error
            && let Some(message) = last_error
        {
            let data = json!({"message": message, "step": step});
            self.events.publish(Kind::Alarm, data);
        }
    }

    /// Raises the alarm of this kind for the reason `why`, or takes it back. Those who watch are told when it is raised.
    pub(super) fn set_alarm(&self, kind: AlarmKind, step: u64, why: Option<String>) {
        let mut status = locked(&self.status);
        let place = status.alarms.iter().position(|alarm| alarm.alarm == kind);
        match (place, why) {
            (Some(place), Some(message)) => status.alarms[place].message = message,
            (Some(place), None) => _ = status.alarms.remove(place),
            (None, Some(message)) => {
                tracing::warn!(alarm = kind.name(), step, message, "alarm");
                let alarm = Alarm::new(kind, step, message);
                let data = json!({
                    "alarm": kind, "message": alarm.message, "remedy": alarm.remedy, "step": step,
                });
                status.alarms.push(alarm);
                status.alarms.sort_by_key(|alarm| alarm.alarm);
                self.events.publish(Kind::Alarm, data);
            }
            (None, None) => {}
        }
    }

    /// Whether the alarm of this kind is raised.
    pub(super) fn is_raised(&self, kind: AlarmKind) -> bool {
        let status = locked(&self.status);
        status.alarms.iter().any(|alarm| alarm.alarm == kind)
    }

    /// Adds a judgement for the loop.
    pub(super) fn push_judgement(&self, judgement: Judgement) {
        let mut judgements = locked(&self.judgements);
        if judgements.len() == MAX_JUDGEMENTS {
            judgements.pop_front();
        }
        judgements.push_back(judgement);
    }

    /// Takes the judgements that have arrived, oldest first.
    pub(super) fn take_judgements(&self) -> VecDeque<Judgement> {
        std::mem::take(&mut locked(&self.judgements))
    }

    /// Records why the last snapshot could not be written.
    pub(super) fn set_unsaved(&self, why: String) {
        *locked(&self.unsaved) = Some(why);
    }

    pub(super) fn unsaved(&self) -> Option<String> {
        locked(&self.unsaved).clone()
    }

    /// Records why a checkpoint could not be written.
    pub(super) fn push_unwritten(&self, id: CheckpointId, failure: WriteFailure) {
        let mut unwritten = locked(&self.unwritten);
        if unwritten.len() == MAX_UNWRITTEN {
            unwritten.pop_front();
        }
        unwritten.push_back((id, failure));
    }

    /// Why a checkpoint could not be written, if that is known by now.
    pub(super) fn write_failure(&self, id: CheckpointId) -> Option<WriteFailure> {
        let unwritten = locked(&self.unwritten);
        let found = unwritten.iter().find(|(failed, _)| *failed == id);
        found.map(|(_, failure)| *failure)
    }

    /// Wakes those who wait for a checkpoint's writing to end.
    pub(super) fn notify_written(&self) {
        self.written.send_modify(|count| *count += 1);
    }

    pub(super) fn subscribe_writes(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }
}

impl TrainingStatus {
    /// Shows that training failed with `error`.
    pub(super) fn fail(&mut self, error: String) {
        self.state = TrainingState::Failed;
        self.waiting_for = None;
        self.last_error = Some(error);
    }

    fn new(objective: String) -> Self {
        Self {
            state: TrainingState::Waiting,
            waiting_for: Some("the trainer to start".to_owned()),
            step: 0,
            epoch: 0,
            objective,
            loss: None,
            global_loss_estimate: None,
            acceptance_rate: None,
            chain_age: None,
            max_chain_age: 0,
            stored_minus_fresh: None,
            gradient_norms: None,
            carried_share: None,
            chains: 0,
            pairs: 0,
            recent_pairs: 0,
            images: 0,
            view_side: 0,
            steps_per_second: 0.0,
            images_per_second: 0.0,
            learning_rate: 0.0,
            set_learning_rate: None,
            skipped: 0,
            recoveries: 0,
            rate_scale: 1.0,
            alarms: Vec::new(),
            last_error: None,
            resumed_from: None,
        }
    }
}

/// Ignores poisoning: every change of these values is a single statement, so a panic elsewhere leaves them whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The loop over step boundaries: apply commands, follow the database, take snapshots, then step or wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use super::{
    alarms::{self, AlarmKind},
    backoff::Backoff,
    batches::Batches,
    context::Context,
    control::Control,
    epoch::{MIN_BATCH, Position},
    error::TrainFailure,
    head,
    held_learner::HeldLearner,
    meter::Meter,
    origin::Start,
    recovery::{self, Rollback},
    snapshot_job::SnapshotJob,
    snapshotter::Snapshotter,
    status::{CandidateVerdict, Judgement, TrainingState},
    training_set::{DrawPosition, Removed, TrainingSet},
    triggers::Triggers,
};
use crate::{
    checkpoint::{Label, Origin, TrainerState},
    db::{CheckpointRole, CheckpointRow, Verdict},
    types::CheckpointId,
};

/// Longest wait for a command while there is nothing to do: new pairs are noticed after it.
const IDLE: Duration = Duration::from_millis(100);

/// How a run ended when it did not fail.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// It was told to stop.
    Stop,
    /// It must go on from a healthy checkpoint.
    RollBack(Rollback),
}

/// One run of training: from a checkpoint until it is stopped, fails, or rolls back.
pub(super) struct Run<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) pool: &'a ThreadPool,
    pub(super) snapshotter: &'a Snapshotter,
    /// Tells this run's judgements from those of runs before it.
    pub(super) run_id: u64,
    /// The step at which it began.
    pub(super) began_at: u64,
    /// Whether it began with a roll-back.
    pub(super) is_restored: bool,
    pub(super) learner: HeldLearner,
    pub(super) state: TrainerState,
    pub(super) training_set: TrainingSet,
    pub(super) batches: Batches,
    pub(super) meter: Meter,
    pub(super) setbacks: Setbacks,
    pub(super) triggers: Triggers,
    /// Where the weights began, for every snapshot to say.
    pub(super) origin: Option<Origin>,
    /// The newest checkpoint of this run, or the one that it started from.
    pub(super) parent: Option<CheckpointId>,
    /// The checkpoint that it began with, if that was being judged for the run before.
    pub(super) judged_meanwhile: Option<CheckpointId>,
    /// Whether it waited for pairs that may be each other's negatives.
    lacks_negatives: bool,
    backoff: Backoff,
}

/// Setbacks that end training when they add up.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    /// Skipped steps in a row.
    pub(super) skipped: u32,
    /// Batches in a row without two usable pairs.
    pub(super) unusable: u32,
    /// Why training does nothing until a caller resumes it.
    pub(super) given_up: Option<String>,
}

/// Why the loop waits instead of making the next step.
struct WaitReason {
    state: TrainingState,
    waiting_for: Option<String>,
    /// Why there is nothing to learn, if there is; `None`: the reason says nothing of that.
    nothing_to_learn: Option<Option<String>>,
}

impl WaitReason {
    fn waiting(what: String) -> Option<Self> {
        Some(Self {
            state: TrainingState::Waiting,
            waiting_for: Some(what),
            nothing_to_learn: None,
        })
    }

    /// Waits for other pairs than there are, among which there is nothing to learn for the reason `why`.
    fn for_pairs(what: String, why: Option<String>) -> Option<Self> {
        Self::waiting(what).map(|reason| Self {
            nothing_to_learn: Some(why),
            ..reason
        })
    }

    fn state(state: TrainingState) -> Option<Self> {
        Some(Self {
            state,
            waiting_for: None,
            nothing_to_learn: None,
        })
    }
}

impl<'a> Run<'a> {
    /// Builds everything anew from `start` and reads all trained pairs.
    pub(super) fn new(
        context: &'a Arc<Context>,
        pool: &'a ThreadPool,
        snapshotter: &'a Snapshotter,
        start: Start,
        run_id: u64,
    ) -> Result<Self, TrainFailure> {
        let state = start.snapshot.trainer.clone();
        let origin = start.snapshot.origin.clone();
        let pretrained = Origin::is_pretrained(origin.as_ref());
        let unfitted = start.snapshot.is_unfitted();
        let (parent, is_restored) = (start.parent, start.is_restored);
        context.pair_effect.resumed_at(state.step);
        // The series goes on from here: what came after it in an earlier run is lost.
        if let Err(error) = context.wait(context.db.drop_metrics_after(state.step)) {
            tracing::warn!(step = state.step, %error, "the training series keeps rows of what is lost");
        }
        let training_set = TrainingSet::read(context, state.seed, position(&state))?;
        let (snapshots, pairs) = (&context.config.snapshots, state.snapshot_pairs as usize);
        let (now, max_rest) = (Instant::now(), context.config.run.max_rest());
        let mut run = Self {
            context,
            pool,
            snapshotter,
            run_id,
            began_at: state.step,
            is_restored,
            learner: HeldLearner::new(context, start)?,
            batches: Batches::start(context, &state, pretrained)?,
            meter: Meter::new(),
            setbacks: Setbacks::default(),
            triggers: Triggers::new(snapshots, state.step, pairs, now, max_rest),
            training_set,
            origin,
            parent,
            judged_meanwhile: None,
            lacks_negatives: false,
            backoff: Backoff::new(max_rest),
            state,
        };
        run.forget_erased();
        if is_restored {
            // A snapshot at the next step boundary keeps the new rate, and fresh weights if there are any, from being lost to a kill. It is judged.
            run.triggers.force();
        } else {
            run.judge_or_fit_parent(unfitted)?;
        }
        Ok(run)
    }

    /// Trains until it is told to stop or must roll back. While a store fails it keeps its state and tries again.
    pub(super) fn drive(&mut self, control: &mut Control) -> Result<End, TrainFailure> {
        loop {
            let before = self.state.step;
            match self.pass_boundary(control) {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => {
                    let made = self.state.step - before;
                    self.backoff.record_steps(made);
                    self.triggers.record_steps(made);
                }
                Err(TrainFailure::Store(error)) if !control.stopping => {
                    self.rest_after(control, &error)
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// What happens between two step boundaries.
    fn pass_boundary(&mut self, control: &mut Control) -> Result<Option<End>, TrainFailure> {
        control.drain_commands();
        if control.stopping {
            self.finish(control)?;
            return Ok(Some(End::Stop));
        }
        let removed = self.training_set.poll(self.context)?;
        self.forget(removed);
        self.triggers
            .see_pairs(self.training_set.len(), self.state.step);
        self.apply_commands(control);
        if let Some(rollback) = self.rollback_due(control) {
            return Ok(Some(End::RollBack(rollback)));
        }
        self.snapshot_if_due(control)?;
        let wait_reason = self.wait_reason(control);
        self.publish_status(wait_reason.as_ref());
        control.acknowledge();
        if wait_reason.is_some() {
            control.wait(IDLE);
        } else {
            self.run_step()?;
        }
        Ok(None)
    }

    /// Rests after a store failed. Weights, moments and chains are intact; the planned batches are planned again, so that none is lost.
    fn rest_after(&mut self, control: &mut Control, error: &str) {
        let rest = self.backoff.next_rest();
        tracing::error!(
            error,
            rest_seconds = rest.as_secs(),
            step = self.state.step,
            "a store failed: training rests and keeps its state"
        );
        self.context
            .status
            .update(|status| status.fail(error.to_owned()));
        control.rest(rest);
        let (step, position) = (self.state.step, position(&self.state));
        self.batches.restart(&mut self.training_set, step, position);
    }

    /// Drops what was learned about pairs that left the training set.
    pub(super) fn forget(&mut self, removed: Removed) {
        if removed.pairs.is_empty() {
            return;
        }
        if !removed.images.is_empty() {
            self.batches.forget(&removed.images);
        }
        self.learner
            .forget(&removed.pairs, &self.training_set.graph);
        // Snapshots taken before this still hold what is erased now.
        self.triggers.mark_dirty();
    }

    /// Drops what was learned of pairs that were erased since the checkpoint was taken.
    fn forget_erased(&mut self) {
        let graph = &self.training_set.graph;
        let known = self.learner.pairs().into_iter();
        let erased = known.filter(|pair| graph.get(*pair).is_none()).collect();
        self.forget(Removed {
            pairs: erased,
            images: Vec::new(),
        });
    }

    /// Counts the verdict on the checkpoint that the run starts from, which cannot be in its own files. Has it judged, if that has not been done: it may have been written just before a stop. One without a fitted projection is worse than what it would be, and another of
    /// the same state that gets one is judged in its place, once training is on.
    fn judge_or_fit_parent(&mut self, unfitted: bool) -> Result<(), TrainFailure> {
        let Some(id) = self.parent else { return Ok(()) };
        let context = self.context;
        let row = context.wait(context.db.checkpoint(id))?;
        // At step 0 only what was imported beside checkpoint 0 waits for a verdict.
        let enabled = context.config.run.enabled;
        let counts =
            |row: &CheckpointRow| row.step > 0 || enabled && row.role != CheckpointRole::Live;
        let Some(row) = row.filter(counts) else {
            return Ok(());
        };
        if let Some(verdict) = row.verdict {
            // A promotion puts its own reason in the place of the judge's.
            let judged = row.reason.filter(|_| row.decided_by.is_none());
            let why = judged.unwrap_or_else(|| "it was judged so before".to_owned());
            if verdict == Verdict::Collapsed {
                let message = Some(alarms::collapsed(row.step, &why));
                context
                    .status
                    .set_alarm(AlarmKind::Collapse, row.step, message);
            }
            context.status.push_judgement(Judgement {
                run_id: self.run_id,
                checkpoint: id,
                verdict: CandidateVerdict::new(verdict, &why),
            });
            return Ok(());
        }
        if !self.snapshotter.is_idle() {
            // It is the newest, so that it is being judged for the run before.
            self.judged_meanwhile = Some(id);
            return Ok(());
        }
        let config = &context.config;
        if unfitted && head::suffice(config, self.training_set.len()) {
            return if config.run.enabled {
                self.fit_parent()
            } else {
                Ok(())
            };
        }
        self.snapshotter.submit(SnapshotJob {
            label: Label {
                id,
                note: row.note,
                parent: row.parent,
                kept: row.kept,
            },
            step: row.step,
            snapshot: None,
            only_to_fit: false,
            is_judged: true,
            is_suspected: recovery::looks_collapsed(&self.state.watch, context.gate()),
            is_restored: false,
            last_error: None,
            pairs_before: self.triggers.snapshot_pairs(),
            range: None,
            run_id: self.run_id,
            run_began_at: self.began_at,
        })
    }

    /// Why the next step cannot be made now, if so.
    fn wait_reason(&self, control: &Control) -> Option<WaitReason> {
        let run = &self.context.config.run;
        let (wanted, pairs) = (run.min_pairs.max(MIN_BATCH), self.training_set.len());
        if self.setbacks.given_up.is_some() {
            WaitReason::state(TrainingState::Failed)
        } else if !run.enabled {
            WaitReason::waiting("training.enabled is false".to_owned())
        } else if control.paused {
            WaitReason::state(TrainingState::Paused)
        } else if self.is_complete() {
            WaitReason::waiting(format!("training.max_steps ({}) is reached", run.max_steps))
        } else if pairs < wanted {
            WaitReason::for_pairs(format!("{wanted} training pairs, {pairs} are there"), None)
        } else if !self.training_set.graph.has_eligible_negative() {
            let what = format!(
                "two training pairs that may be each other's negatives: all {pairs} pairs share a group or an image"
            );
            let why = format!("Training waits for {what}.");
            WaitReason::for_pairs(what, Some(why))
        } else {
            None
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        let max_steps = self.context.config.run.max_steps;
        max_steps > 0 && self.state.step >= max_steps
    }

    fn publish_status(&mut self, wait_reason: Option<&WaitReason>) {
        let over = wait_reason.is_none() && self.lacks_negatives;
        let found = wait_reason.and_then(|reason| reason.nothing_to_learn.clone());
        if let Some(why) = found.or(over.then_some(None)) {
            self.lacks_negatives = why.is_some();
            let (status, step) = (&self.context.status, self.state.step);
            status.set_alarm(AlarmKind::NothingToLearn, step, why);
        }
        let graph = &self.training_set.graph;
        self.context.status.update(|status| {
            status.state = wait_reason.map_or(TrainingState::Running, |reason| reason.state);
            status.waiting_for = wait_reason.and_then(|reason| reason.waiting_for.clone());
            status.step = self.state.step;
            status.epoch = self.state.epoch;
            status.chains = self.learner.chains().len() as u64;
            status.pairs = graph.len() as u64;
            status.recent_pairs = self.training_set.recent() as u64;
            status.images = graph.images() as u64;
            status.skipped = self.state.skipped;
            status.learning_rate = self.rate();
            status.set_learning_rate = self.state.rate_override;
            status.view_side = self.batches.side(self.state.step) as u64;
            status.rate_scale = self.state.rate_scale;
            self.meter.write_to(status);
            if wait_reason.is_some() {
                status.steps_per_second = 0.0;
                status.images_per_second = 0.0;
            }
        });
    }
}

/// The position in the draws that the trainer's state stands at.
fn position(state: &TrainerState) -> DrawPosition {
    DrawPosition {
        all: Position {
            epoch: state.epoch,
            cursor: state.cursor,
        },
        recent: state.recent,
    }
}

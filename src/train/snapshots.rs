//! The snapshots of a run: when one is taken, which callers share it, and what it contains.

use std::time::Instant;

use super::{
    control::{Control, Request},
    error::{TrainError, TrainFailure},
    head, recovery,
    run::Run,
    snapshot_job::SnapshotJob,
};
use crate::{
    checkpoint::{CheckpointError, Event, Label},
    db::{CheckpointStatus, DbError},
    types::CheckpointId,
};

impl Run<'_> {
    /// Takes a snapshot if one is due or callers have asked for one.
    pub(super) fn snapshot_if_due(&mut self, control: &mut Control) -> Result<(), TrainFailure> {
        let (step, now) = (self.state.step, Instant::now());
        let complete = self.is_complete();
        let automatic =
            self.setbacks.given_up.is_none() && self.triggers.is_due(step, now, complete);
        if !control.requests.is_empty() {
            self.catch_up()?;
            if let Some(id) = self.taken_already()? {
                return self.share(id, std::mem::take(&mut control.requests));
            }
        }
        let asked = !control.requests.is_empty() && self.snapshotter.has_room();
        if asked || automatic && self.snapshotter.is_idle() {
            // Like the one of a stop, one that is taken with training off has no projection that was fitted to them.
            if self.context.config.run.enabled {
                self.state.snapshot_pairs = self.training_set.len() as u64;
            }
            return self.snapshot(std::mem::take(&mut control.requests));
        }
        if automatic && !complete && !self.triggers.is_forced() {
            tracing::warn!(
                step,
                "an automatic snapshot is skipped: the one before is still being written or judged"
            );
            self.triggers.skip(step, now);
        }
        Ok(())
    }

    /// The snapshot of this very state, if there is one.
    fn taken_already(&self) -> Result<Option<CheckpointId>, TrainFailure> {
        let step = self.state.step;
        let changed = self.triggers.is_dirty(step) || self.triggers.is_forced();
        let Some(id) = self.parent.filter(|_| !changed) else {
            return Ok(None);
        };
        let row = self.context.wait(self.context.db.checkpoint(id))?;
        let there = row.filter(|row| row.status != CheckpointStatus::Failed && row.step == step);
        Ok(there.map(|row| row.id))
    }

    /// Several callers at one step share one snapshot, which is kept from then on.
    fn share(&self, id: CheckpointId, requests: Vec<Request>) -> Result<(), TrainFailure> {
        let context = self.context;
        let shared = context.wait(async {
            context.checkpoints.keep(id, true).await?;
            let row = context.db.checkpoint(id).await?;
            let notes = joined(row.and_then(|row| row.note), &requests);
            context.checkpoints.note(id, notes.as_deref()).await
        });
        answer(requests, shared.map(|()| id));
        Ok(())
    }

    /// Copies the state and hands it over; all `requests` get its id.
    fn snapshot(&mut self, requests: Vec<Request>) -> Result<(), TrainFailure> {
        self.submit_copy(requests, false)
    }

    /// Hands over a copy of the state that the run starts from, which gets the fitted projection that its checkpoint lacks.
    pub(super) fn fit_parent(&mut self) -> Result<(), TrainFailure> {
        self.submit_copy(Vec::new(), true)
    }

    fn submit_copy(
        &mut self,
        requests: Vec<Request>,
        only_to_fit: bool,
    ) -> Result<(), TrainFailure> {
        self.catch_up()?;
        // What has changed since the checkpoint is worth keeping for itself.
        let only_to_fit = only_to_fit && !self.triggers.is_dirty(self.state.step);
        let kept = !requests.is_empty();
        let label = Label {
            note: joined(None, &requests),
            kept,
            ..Label::new(self.parent)
        };
        let (state, origin) = (self.state.clone(), self.origin.clone());
        let snapshot = match self.learner.snapshot(self.context, state, origin) {
            Ok(snapshot) => Box::new(snapshot),
            Err(failure) => return refused_by(failure, requests),
        };
        let config = &self.context.config;
        let is_fitted_later = !config.run.enabled
            && snapshot.is_unfitted()
            && head::suffice(config, self.training_set.len());
        let step = self.state.step;
        let checkpoints = &self.context.checkpoints;
        let begun = self.context.wait(async {
            if kept {
                checkpoints.decide(&Event::SnapshotAsked).await?;
            }
            checkpoints.begin(&label, step).await
        });
        if let Err(error) = begun {
            return refused(requests, error);
        }
        answer(requests, Ok(label.id));
        self.parent = Some(label.id);
        let pairs_before = self.triggers.snapshot_pairs();
        self.triggers.taken(step, Instant::now());
        self.snapshotter.submit(SnapshotJob {
            label,
            step,
            snapshot: Some(snapshot),
            only_to_fit,
            is_judged: !is_fitted_later,
            is_suspected: recovery::looks_collapsed(&self.state.watch, self.context.gate()),
            is_restored: self.is_restored && step == self.began_at,
            last_error: self.context.status.current().last_error,
            pairs_before,
            range: self.meter.range(),
            run_id: self.run_id,
            run_began_at: self.began_at,
        })
    }

    /// Takes in all erasures up to now, so that no snapshot from here on holds what was erased.
    fn catch_up(&mut self) -> Result<(), TrainFailure> {
        let removed = self.training_set.catch_up(self.context)?;
        self.forget(removed);
        Ok(self.training_set.prune_log(self.context)?)
    }

    /// The last snapshot, if anything happened since the newest or a caller still waits for one.
    pub(super) fn finish(&mut self, control: &mut Control) -> Result<(), TrainFailure> {
        self.snapshotter.request_shutdown();
        self.apply_commands(control);
        // A roll-back that is due is the next start's to do: it begins with the checkpoint whose verdict calls for it.
        let is_undone = self.count_judgements().is_some();
        let requests = std::mem::take(&mut control.requests);
        let news = self.triggers.is_dirty(self.state.step) || self.triggers.is_forced();
        let dirty = news && !is_undone && self.setbacks.given_up.is_none();
        if dirty || !requests.is_empty() {
            self.snapshot(requests)?;
        }
        Ok(())
    }
}

/// The existing note followed by those of all callers.
fn joined(there: Option<String>, requests: &[Request]) -> Option<String> {
    const BETWEEN: &str = "; ";
    let there = there.unwrap_or_default();
    let mut notes: Vec<&str> = there
        .split(BETWEEN)
        .filter(|note| !note.is_empty())
        .collect();
    for note in requests
        .iter()
        .filter_map(|request| request.note.as_deref())
    {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    (!notes.is_empty()).then(|| notes.join(BETWEEN))
}

/// Tells all who asked the same. One of them may have gone: the snapshot is taken all the same.
fn answer(requests: Vec<Request>, outcome: Result<CheckpointId, CheckpointError>) {
    for request in requests {
        let _ = request
            .answer
            .send(outcome.as_ref().copied().map_err(refusal));
    }
}

/// What one of several callers is told of `error`.
fn refusal(error: &CheckpointError) -> TrainError {
    match error {
        CheckpointError::Quota { kept } => CheckpointError::Quota { kept: *kept }.into(),
        CheckpointError::Db(DbError::Full) => CheckpointError::Db(DbError::Full).into(),
        error => TrainError::Unavailable(error.to_string()),
    }
}

/// Tells the callers that the state cannot be copied, which ends the run or has it rest.
fn refused_by(failure: TrainFailure, requests: Vec<Request>) -> Result<(), TrainFailure> {
    for request in requests {
        let refusal = TrainError::Unavailable(failure.to_string());
        let _ = request.answer.send(Err(refusal));
    }
    Err(failure)
}

/// Answers the callers with `error`. A refused request concerns only them; a failing store is also the loop's failure.
fn refused(requests: Vec<Request>, error: CheckpointError) -> Result<(), TrainFailure> {
    let callers_only = matches!(error, CheckpointError::Quota { .. });
    let failure = TrainFailure::Store(error.to_string());
    answer(requests, Err(error));
    if callers_only { Ok(()) } else { Err(failure) }
}

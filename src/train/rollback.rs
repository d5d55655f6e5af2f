//! The decision of a run to roll back or to give up, and the commands that change how it goes on.

use super::{control::Control, recovery::Rollback, run::Run, status::CandidateVerdict};
use crate::checkpoint::Recovery;

impl Run<'_> {
    /// Applies settings changed by callers, and takes note of checkpoints that could not be written.
    pub(super) fn apply_commands(&mut self, control: &mut Control) {
        if std::mem::take(&mut control.rate_changed) {
            // The caller's rate replaces what rollbacks have left of the one before.
            self.state.rate_scale = 1.0;
            self.state.recovery = Recovery {
                since: self.state.step,
                ..Recovery::default()
            };
            self.triggers.mark_dirty();
        }
        if control.rate.is_some() && control.rate != self.state.rate_override {
            self.state.rate_override = control.rate;
            self.triggers.mark_dirty();
        }
        if self.snapshotter.take_lost() {
            self.triggers.mark_dirty();
        }
    }

    /// The rollback that must happen now: after a collapse, a series of worse candidates, or a caller's resuming of training that gave up.
    pub(super) fn rollback_due(&mut self, control: &mut Control) -> Option<Rollback> {
        let resumed = std::mem::take(&mut control.resumed);
        if let Some(why) = self.setbacks.given_up.take_if(|_| resumed) {
            self.keep_given_up(None);
            return Some(Rollback::after_resume(why, &self.state));
        }
        let judgements = self.context.status.take_judgements();
        let run_id = self.run_id;
        let mut own = judgements.into_iter().filter(|j| j.run_id == run_id);
        let why = own.find_map(|judgement| self.rollback_reason(judgement.verdict))?;
        if self.setbacks.given_up.is_some() {
            return None;
        }
        let rollback =
            Rollback::with_lower_rate(why.clone(), &self.state, &self.context.config.snapshots);
        if rollback.is_none() {
            self.give_up(format!(
                "{} recoveries did not help; the last followed this: {why}. Look at the pairs, set a lower learning rate, then set the state \
                 to running, which goes back to the best checkpoint",
                self.state.recovery.tries
            ));
        }
        rollback
    }

    /// Counts a candidate's verdict; returns why training must roll back, if it must.
    fn rollback_reason(&mut self, verdict: CandidateVerdict) -> Option<String> {
        let recovery = &mut self.state.recovery;
        let max_refusals = self.context.gate().max_refusals;
        match verdict {
            CandidateVerdict::Better => (recovery.tries, recovery.refusals) = (0, 0),
            CandidateVerdict::Undecided => recovery.refusals = 0,
            CandidateVerdict::Worse(why) => {
                recovery.refusals += 1;
                if max_refusals > 0 && recovery.refusals >= max_refusals {
                    return Some(format!(
                        "{max_refusals} candidates in a row were worse: {why}"
                    ));
                }
            }
            CandidateVerdict::Collapsed(why) => return Some(why),
        }
        None
    }

    /// Stops training until a caller resumes it.
    pub(super) fn give_up(&mut self, reason: String) {
        tracing::error!(step = self.state.step, reason, "training gave up");
        self.keep_given_up(Some(&reason));
        self.rest_given_up(reason);
    }

    /// Does nothing until a caller resumes training.
    pub(super) fn rest_given_up(&mut self, reason: String) {
        self.context
            .status
            .update(|status| status.last_error = Some(reason.clone()));
        self.setbacks.given_up = Some(reason);
    }

    /// Writes down whether training gave up, so that a restart does not resume it.
    fn keep_given_up(&self, reason: Option<&str>) {
        let kept = self.context.db.set_training_given_up(reason);
        if let Err(error) = self.context.wait(kept) {
            tracing::error!(%error, "a restart will not know whether training gave up");
        }
    }
}

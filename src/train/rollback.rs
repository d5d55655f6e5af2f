//! The decision of a run to roll back or to give up, and the commands that change how it goes on.

use std::time::Instant;

use super::{control::Control, recovery::Rollback, run::Run, status::CandidateVerdict};
use crate::checkpoint::{GateConfig, Recovery};

impl Run<'_> {
    /// Applies settings changed by callers, and takes note of checkpoints that could not be written.
    pub(super) fn apply_commands(&mut self, control: &mut Control) {
        // A rate that the checkpoint does not know was set after it, before a kill or a failure. What a roll-back went back to is older still.
        let is_unknown = control.rate != self.state.rate_override && !self.is_restored;
        if std::mem::take(&mut control.rate_changed) || is_unknown {
            // The caller's rate replaces what rollbacks have left of the one before.
            self.state.rate_scale = 1.0;
            self.state.recovery = Recovery {
                since: self.state.step,
                ..Recovery::default()
            };
            self.triggers.mark_dirty();
        }
        if control.rate != self.state.rate_override {
            self.state.rate_override = control.rate;
            self.triggers.mark_dirty();
        }
        if let Some(pairs_before) = self.snapshotter.take_lost() {
            self.triggers.lose(pairs_before, Instant::now());
            if self.context.config.run.enabled {
                self.state.snapshot_pairs = self.triggers.snapshot_pairs() as u64;
            }
        }
    }

    /// The rollback that must happen now: after a collapse, a series of worse candidates, or a caller's resuming of training that gave up.
    pub(super) fn rollback_due(&mut self, control: &mut Control) -> Option<Rollback> {
        let resumed = std::mem::take(&mut control.resumed);
        if let Some(why) = self.setbacks.given_up.take_if(|_| resumed) {
            self.keep_given_up(None);
            return Some(Rollback::after_resume(why, &self.state));
        }
        let why = self.count_judgements()?;
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

    /// Counts the verdicts that have arrived on checkpoints of this run; why training must roll back, if it must.
    pub(super) fn count_judgements(&mut self) -> Option<String> {
        let judgements = self.context.status.take_judgements();
        let (run_id, began_with) = (self.run_id, self.judged_meanwhile);
        let mut own = judgements
            .into_iter()
            .filter(|j| j.run_id == run_id || Some(j.checkpoint) == began_with);
        let (recovery, gate) = (&mut self.state.recovery, self.context.gate());
        own.find_map(|judgement| reason(recovery, judgement.verdict, gate))
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
            .update(|status| status.fail(reason.clone()));
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

/// Counts a candidate's verdict; returns why training must roll back, if it must.
fn reason(recovery: &mut Recovery, verdict: CandidateVerdict, gate: &GateConfig) -> Option<String> {
    let max_refusals = gate.max_refusals;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max_refusals: u32) -> GateConfig {
        GateConfig {
            max_refusals,
            ..GateConfig::TESTED
        }
    }

    fn worse() -> CandidateVerdict {
        CandidateVerdict::Worse("it finds fewer".to_owned())
    }

    #[test]
    fn only_worse_candidates_in_a_row_call_for_a_roll_back() {
        for between in [CandidateVerdict::Better, CandidateVerdict::Undecided] {
            let mut recovery = Recovery::default();
            let mut after = |verdict| reason(&mut recovery, verdict, &gate(2));
            assert_eq!(after(worse()), None);
            assert_eq!(after(between), None);
            assert_eq!(after(worse()), None);
            let why = after(worse()).unwrap();
            assert!(why.contains("2 candidates in a row were worse: it finds fewer"));
        }
        let mut recovery = Recovery::default();
        assert!((0..9).all(|_| reason(&mut recovery, worse(), &gate(0)).is_none()));
        let collapsed = CandidateVerdict::Collapsed("no spread".to_owned());
        let why = reason(&mut recovery, collapsed, &gate(0));
        assert_eq!(why.as_deref(), Some("no spread"));
    }

    #[test]
    fn a_better_candidate_ends_the_count_of_recoveries_and_an_undecided_one_does_not() {
        let mut recovery = Recovery {
            tries: 3,
            ..Recovery::default()
        };
        reason(&mut recovery, CandidateVerdict::Undecided, &gate(2));
        assert_eq!(recovery.tries, 3);
        reason(&mut recovery, CandidateVerdict::Better, &gate(2));
        assert_eq!(recovery.tries, 0);
    }
}

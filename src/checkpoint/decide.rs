//! The transitions of a checkpoint's life: from an event to actions, which `roles.rs` carries out.

use super::{
    Action, CheckpointError, Entry, Event, Finding, GateConfig, Life, Outcome, Policy, Retention,
    reason,
};
use crate::{
    db::{CheckpointRole, CheckpointStatus, DecidedBy, Verdict},
    types::CheckpointId,
};
use kith_eval::Score;

impl Life {
    /// The actions that follow from `event`.
    ///
    /// # Errors
    /// The event is refused, and nothing is to be done.
    pub fn decide(&self, event: &Event, policy: &Policy) -> Result<Vec<Action>, CheckpointError> {
        match event {
            Event::SnapshotAsked => self.within_quota(&policy.retention).map(|()| Vec::new()),
            Event::Judged { id, outcome } => Ok(self.judged(*id, outcome, &policy.gate)),
            Event::Chosen { id, hold } => self.chosen(*id, *hold),
            Event::Released => Ok(self.released(&policy.gate)),
            Event::Kept { id, kept } => self.keep(*id, *kept, &policy.retention),
            Event::Deleted(id) => self.deleted(*id),
            Event::Started { newest, live_loads } => Ok(self.started(*newest, *live_loads)),
            Event::Unreadable(id) => Ok(vec![damaged(*id)]),
            Event::Tidied => {
                let expired = policy.retention.expired(self);
                Ok(expired.into_iter().map(Action::Remove).collect())
            }
        }
    }

    fn within_quota(&self, retention: &Retention) -> Result<(), CheckpointError> {
        let kept = self.entries.iter().filter(|entry| entry.kept).count();
        if kept < retention.max_kept {
            Ok(())
        } else {
            Err(CheckpointError::Quota { kept })
        }
    }

    fn judged(&self, id: CheckpointId, outcome: &Outcome, gate: &GateConfig) -> Vec<Action> {
        let mut actions = match outcome {
            Outcome::Untrained(why) => self.unfit(id, Verdict::Untrained, why, gate),
            Outcome::Collapsed(why) => self.unfit(id, Verdict::Collapsed, why, gate),
            Outcome::Scored {
                pairs,
                units,
                live_readable,
                is_live_copy,
            } => match gate.too_few(*pairs, *units) {
                Some(why) => self.untested(id, &why, *is_live_copy),
                None if !live_readable => self.unopposed(id),
                None => self.scored(id, gate),
            },
        };
        // Found to be damaged when it was to serve: it stays so, and what the others do is decided again.
        if self.entry(id).is_some_and(Entry::is_damaged) {
            let concerns = |action: &Action| matches!(action, Action::Serve { id: other, .. } | Action::Mark { id: other, .. } if *other == id);
            actions.retain(|action| !concerns(action));
        }
        actions
    }

    /// The candidate cannot serve. A live checkpoint chosen without a hold may still be replaced by a better one.
    fn unfit(
        &self,
        id: CheckpointId,
        verdict: Verdict,
        why: &str,
        gate: &GateConfig,
    ) -> Vec<Action> {
        let mark = Action::Mark {
            id,
            verdict,
            why: Some(why.to_owned()),
        };
        let mut after = self.clone();
        after.apply(&mark);
        let score = self.entry(id).and_then(|entry| entry.score.as_ref());
        let next = score.and_then(|score| after.succession(score, gate));
        std::iter::once(mark).chain(next).collect()
    }

    /// Too few held-out pairs to compare, for the reason `too_few`: what lives may serve, and it is said that nothing was shown. A copy of what serves
    /// would only have callers embed everything anew.
    fn untested(&self, id: CheckpointId, too_few: &str, is_live_copy: bool) -> Vec<Action> {
        let held = self.live().is_some_and(|live| live.held);
        let is_live = self.live().is_some_and(|live| live.id == id);
        let why = if is_live_copy {
            reason::LIVE_COPY.to_owned()
        } else {
            reason::not_compared(too_few, held)
        };
        let mut actions = vec![Action::Mark {
            id,
            verdict: Verdict::Untested,
            why: (!is_live).then(|| why.clone()),
        }];
        if !held && !is_live && !is_live_copy {
            actions.push(serve(id, why));
        }
        actions
    }

    /// Nothing readable serves: the best there is takes its place, unless a person's choice holds.
    fn unopposed(&self, id: CheckpointId) -> Vec<Action> {
        let mut actions = vec![Action::Mark {
            id,
            verdict: Verdict::Better,
            why: Some(reason::LIVE_UNREADABLE.to_owned()),
        }];
        let score = self.entry(id).and_then(|entry| entry.score.as_ref());
        let best = score.and_then(|score| self.best_on(score));
        if !self.live().is_some_and(|live| live.held) {
            let best = best.map_or(id, |best| best.id);
            actions.push(serve(best, reason::LIVE_UNREADABLE.to_owned()));
        }
        actions
    }

    fn scored(&self, id: CheckpointId, gate: &GateConfig) -> Vec<Action> {
        let score = self.entry(id).and_then(|entry| entry.score.as_ref());
        let (Some(score), Some(live)) = (score, self.live()) else {
            return vec![serve(id, reason::NOTHING_SERVES.to_owned())];
        };
        let best = self.best_on(score).unwrap_or(live);
        let beside_best = best
            .score
            .as_ref()
            .and_then(|best| gate.compare(score, best));
        let beside_live = live
            .score
            .as_ref()
            .and_then(|live| gate.compare(score, live));
        let verdict = match (beside_live, beside_best) {
            (_, Some(Finding::Worse(_))) => Verdict::Worse,
            (Some(Finding::Better(_)), _) => Verdict::Better,
            _ => Verdict::Undecided,
        };
        let why = reason::compared(score, live, best, verdict, gate);
        let mut actions = vec![Action::Mark {
            id,
            verdict,
            why: (live.id != id).then_some(why),
        }];
        actions.extend(self.succession(score, gate));
        actions
    }

    /// A checkpoint takes over that is better than the live one on the same questions, unless a person's choice holds. Afterwards none that
    /// is kept is better than what serves.
    fn succession(&self, score: &Score, gate: &GateConfig) -> Option<Action> {
        let live = self.live().filter(|live| !live.held)?;
        let mut best = live;
        // Each step finds more, so this ends. "Better" is not transitive: one that is no better than the live one may be better than its successor.
        while let Some(better) = self.better_than(best, score, gate) {
            best = better;
        }
        if best.id == live.id {
            return None;
        }
        let why = reason::better(best.score.as_ref()?, live.score.as_ref()?, gate);
        Some(serve(best.id, why))
    }

    /// Of those that are better than `entry` on the questions of `score` the one that finds most; of equals the newest.
    fn better_than(&self, entry: &Entry, score: &Score, gate: &GateConfig) -> Option<&Entry> {
        let own = entry
            .score
            .as_ref()
            .filter(|own| own.is_comparable(score))?;
        let better = |other: &&Entry| {
            let finding = other
                .score
                .as_ref()
                .and_then(|other| gate.compare(other, own));
            let more = other.score.as_ref().map(Score::total_found) > Some(own.total_found());
            other.may_serve() && more && matches!(finding, Some(Finding::Better(_)))
        };
        let found = |other: &&Entry| other.score.as_ref().map(Score::total_found);
        self.entries.iter().filter(better).max_by_key(found)
    }

    fn chosen(&self, id: CheckpointId, hold: bool) -> Result<Vec<Action>, CheckpointError> {
        self.complete(id)?;
        let why = if hold { reason::HELD } else { reason::CHOSEN };
        Ok(vec![Action::Serve {
            id,
            by: DecidedBy::Person,
            why: why.to_owned(),
            hold,
        }])
    }

    fn released(&self, gate: &GateConfig) -> Vec<Action> {
        let mut free = self.clone();
        free.apply(&Action::Release);
        let mut scores = free
            .entries
            .iter()
            .rev()
            .filter_map(|entry| entry.score.as_ref());
        let next = scores.next().and_then(|score| free.succession(score, gate));
        std::iter::once(Action::Release).chain(next).collect()
    }

    fn keep(
        &self,
        id: CheckpointId,
        kept: bool,
        retention: &Retention,
    ) -> Result<Vec<Action>, CheckpointError> {
        let entry = self.entry(id).ok_or(CheckpointError::Unknown(id))?;
        if kept && !entry.kept {
            self.within_quota(retention)?;
        }
        Ok(vec![Action::Keep(id, kept)])
    }

    fn deleted(&self, id: CheckpointId) -> Result<Vec<Action>, CheckpointError> {
        let entry = self.entry(id).ok_or(CheckpointError::Unknown(id))?;
        if entry.role == CheckpointRole::Live {
            return Err(CheckpointError::Live(id));
        }
        if entry.aliased {
            return Err(CheckpointError::Aliased(id));
        }
        if entry.status == CheckpointStatus::Writing {
            return Err(CheckpointError::Unknown(id));
        }
        Ok(vec![Action::Remove(id)])
    }

    /// Something whole must serve: if the live checkpoint does not load, another takes its place, a person's choice or not.
    fn started(&self, newest: CheckpointId, live_loads: bool) -> Vec<Action> {
        match self.live() {
            Some(_) if live_loads => Vec::new(),
            Some(live) => {
                let mark = damaged(live.id);
                let mut after = self.clone();
                after.apply(&mark);
                vec![mark, after.stand_in(newest, reason::LIVE_UNREADABLE)]
            }
            None => vec![self.stand_in(newest, reason::NOTHING_SERVES)],
        }
    }

    /// The best that is known serves; where none is known to be sound, `newest`, which loads.
    fn stand_in(&self, newest: CheckpointId, why: &str) -> Action {
        Action::Serve {
            id: self
                .rollback_candidates()
                .first()
                .copied()
                .unwrap_or(newest),
            by: DecidedBy::Start,
            why: why.to_owned(),
            hold: false,
        }
    }

    fn complete(&self, id: CheckpointId) -> Result<&Entry, CheckpointError> {
        let entry = self.entry(id);
        entry
            .filter(|entry| entry.status == CheckpointStatus::Complete)
            .ok_or(CheckpointError::Unknown(id))
    }
}

fn serve(id: CheckpointId, why: String) -> Action {
    Action::Serve {
        id,
        by: DecidedBy::Gate,
        why,
        hold: false,
    }
}

/// A checkpoint that cannot be read is no candidate for anything.
fn damaged(id: CheckpointId) -> Action {
    Action::Mark {
        id,
        verdict: Verdict::Damaged,
        why: Some(reason::UNREADABLE.to_owned()),
    }
}

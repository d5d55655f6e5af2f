//! The life of a checkpoint as one state machine: events in, actions out, nothing done here.
//! Everything that promotes, refuses, keeps or removes a checkpoint asks [`Life::decide`] first.

use super::{CheckpointError, Finding, GateConfig, Retention, Score, reason};
use crate::{
    db::{CheckpointRole, CheckpointStatus, DecidedBy, Verdict},
    types::CheckpointId,
};

/// What decisions need to know of one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: CheckpointId,
    /// Training step at which it was taken.
    pub step: u64,
    /// Whether it is complete.
    pub status: CheckpointStatus,
    /// What it is to the server.
    pub role: CheckpointRole,
    /// Whether retention leaves it alone.
    pub kept: bool,
    /// Whether a person chose that it serves.
    pub held: bool,
    /// Whether a name points to it.
    pub aliased: bool,
    /// Whether a request, a download or a pinned encoder uses it at this moment.
    pub in_use: bool,
    /// What was found out about it last.
    pub verdict: Option<Verdict>,
    /// Its answers to the held-out questions.
    pub score: Option<Score>,
}

/// What is known of all checkpoints, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Life {
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// The settings that decisions follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `[gate]`.
    pub gate: GateConfig,
    /// `[retention]`.
    pub retention: Retention,
}

/// What happens to a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A caller asks for a snapshot, which will be kept.
    SnapshotAsked,
    /// A candidate was judged.
    Judged {
        /// Which.
        id: CheckpointId,
        /// What came out.
        outcome: Outcome,
    },
    /// A person wants this checkpoint to serve. It loads and is finite.
    Chosen {
        /// Which.
        id: CheckpointId,
        /// Whether the choice holds until it is released.
        hold: bool,
    },
    /// A person gives the choice back to the gate.
    Released,
    /// A caller wants it kept, or not any more.
    Kept {
        /// Which.
        id: CheckpointId,
        /// Kept or not.
        kept: bool,
    },
    /// A caller deletes it by name.
    Deleted(CheckpointId),
    /// At a start: this one is the newest that loads, and whether the live one loads.
    Started {
        /// The newest that loads.
        newest: CheckpointId,
        /// Whether the live one, if there is one, loads.
        live_loads: bool,
    },
    /// Checkpoints that nobody needs may go.
    Tidied,
}

/// The outcome of judging a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a score on the questions of today, from this many held-out pairs.
    Scored {
        /// Pairs with a positive.
        pairs: usize,
        /// Whether the live checkpoint has answers to them, too; else it cannot be read.
        live_readable: bool,
    },
    /// It is too near its fresh weights to say anything.
    Untrained(String),
    /// Its embeddings collapsed, or are not finite.
    Collapsed(String),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It serves from now on; the one before retires.
    Serve {
        /// Which.
        id: CheckpointId,
        /// Who decided.
        by: DecidedBy,
        /// Why, as a sentence.
        why: String,
        /// Whether the gate must leave it.
        hold: bool,
    },
    /// What was found out about it is written down.
    Mark {
        /// Which.
        id: CheckpointId,
        /// The finding.
        verdict: Verdict,
        /// Why, as a sentence; `None` leaves what stands there.
        why: Option<String>,
    },
    /// The live one is held no more.
    Release,
    /// Retention leaves it alone, or no more.
    Keep(CheckpointId, bool),
    /// It goes, files and row.
    Remove(CheckpointId),
}

impl Life {
    /// What follows from `event`; an error refuses it and nothing is to be done.
    pub fn decide(&self, event: &Event, policy: &Policy) -> Result<Vec<Action>, CheckpointError> {
        match event {
            Event::SnapshotAsked => self.within_quota(&policy.retention).map(|()| Vec::new()),
            Event::Judged { id, outcome } => Ok(self.judged(*id, outcome, &policy.gate)),
            Event::Chosen { id, hold } => self.chosen(*id, *hold),
            Event::Released => Ok(self.released(&policy.gate)),
            Event::Kept { id, kept } => self.keep(*id, *kept, &policy.retention),
            Event::Deleted(id) => self.deleted(*id),
            Event::Started { newest, live_loads } => Ok(self.started(*newest, *live_loads)),
            Event::Tidied => {
                let expired = policy.retention.expired(self);
                Ok(expired.into_iter().map(Action::Remove).collect())
            }
        }
    }

    /// The state after `action`.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::Serve { id, hold, .. } => {
                for entry in &mut self.entries {
                    if entry.role == CheckpointRole::Live {
                        entry.role = CheckpointRole::Retired;
                    }
                    entry.held = false;
                    if entry.id == *id {
                        (entry.role, entry.held) = (CheckpointRole::Live, *hold);
                    }
                }
            }
            Action::Mark { id, verdict, .. } => {
                self.change(*id, |entry| entry.verdict = Some(*verdict));
            }
            Action::Release => self.entries.iter_mut().for_each(|entry| entry.held = false),
            Action::Keep(id, kept) => self.change(*id, |entry| entry.kept = *kept),
            Action::Remove(id) => self.entries.retain(|entry| entry.id != *id),
        }
    }

    fn change(&mut self, id: CheckpointId, change: impl FnOnce(&mut Entry)) {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        if let Some(entry) = entry {
            change(entry);
        }
    }

    /// The entry of `id`.
    pub fn entry(&self, id: CheckpointId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// The one that serves.
    pub fn live(&self) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.role == CheckpointRole::Live)
    }

    /// The checkpoint that found most of `score`'s questions, apart from those that collapsed; of equals the newest.
    pub fn best_on(&self, score: &Score) -> Option<&Entry> {
        let comparable = |entry: &&Entry| {
            let own = entry.score.as_ref();
            entry.may_serve() && own.is_some_and(|own| own.is_comparable(score))
        };
        let found = |entry: &&Entry| entry.score.as_ref().map(Score::total_found);
        self.entries.iter().filter(comparable).max_by_key(found)
    }

    /// Checkpoints that training may go back to: the best on the newest questions, then the others that are known to be sound, newest first.
    pub fn way_back(&self) -> Vec<CheckpointId> {
        let newest_score = self.entries.iter().rev().find_map(|e| e.score.as_ref());
        let best = newest_score.and_then(|score| self.best_on(score));
        let judged = |entry: &&Entry| entry.may_serve() && entry.verdict.is_some();
        let others = self.entries.iter().rev().filter(judged);
        let mut order: Vec<CheckpointId> = Vec::new();
        for entry in best.into_iter().chain(others) {
            if !order.contains(&entry.id) {
                order.push(entry.id);
            }
        }
        order
    }

    /// The live one and the best few, which a new candidate is held against: those without answers to `questions` yet.
    pub fn to_judge_again(&self, questions: &str, most: usize) -> Vec<CheckpointId> {
        let sound = self.entries.iter().filter(|entry| entry.may_serve());
        let mut best: Vec<(f64, &Entry)> = sound
            .filter_map(|entry| Some((entry.score.as_ref()?.share(), entry)))
            .collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let best = best.into_iter().take(most).map(|(_, entry)| entry);
        let mut wanted: Vec<CheckpointId> = Vec::new();
        for entry in self.live().into_iter().chain(best) {
            let known = entry.score.as_ref();
            if known.is_none_or(|s| s.questions != questions) && !wanted.contains(&entry.id) {
                wanted.push(entry.id);
            }
        }
        wanted
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
        match outcome {
            Outcome::Untrained(why) => self.unfit(id, Verdict::Untrained, why, gate),
            Outcome::Collapsed(why) => self.unfit(id, Verdict::Collapsed, why, gate),
            Outcome::Scored { pairs, .. } if *pairs < gate.min_pairs => {
                self.untested(id, *pairs, gate)
            }
            Outcome::Scored {
                live_readable: false,
                ..
            } => self.unopposed(id),
            Outcome::Scored { .. } => self.scored(id, gate),
        }
    }

    /// The candidate cannot serve. What was chosen without a hold may still give way to something better.
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

    /// Too few held-out pairs to compare: what lives may serve, and it is said that nothing was shown.
    fn untested(&self, id: CheckpointId, pairs: usize, gate: &GateConfig) -> Vec<Action> {
        let held = self.live().is_some_and(|live| live.held);
        let is_live = self.live().is_some_and(|live| live.id == id);
        let why = reason::too_few(pairs, gate.min_pairs, held);
        let mut actions = vec![Action::Mark {
            id,
            verdict: Verdict::Untested,
            why: (!is_live).then(|| why.clone()),
        }];
        if !held && !is_live {
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

    /// Something whole must serve: if the live checkpoint does not load, the newest that does takes its place, a person's choice or not.
    fn started(&self, newest: CheckpointId, live_loads: bool) -> Vec<Action> {
        let why = match self.live() {
            Some(_) if live_loads => return Vec::new(),
            Some(_) => reason::LIVE_UNREADABLE,
            None => reason::NOTHING_SERVES,
        };
        vec![Action::Serve {
            id: newest,
            by: DecidedBy::Start,
            why: why.to_owned(),
            hold: false,
        }]
    }

    fn complete(&self, id: CheckpointId) -> Result<&Entry, CheckpointError> {
        let entry = self.entry(id);
        entry
            .filter(|entry| entry.status == CheckpointStatus::Complete)
            .ok_or(CheckpointError::Unknown(id))
    }
}

impl Entry {
    /// Whether nothing speaks against serving it.
    pub fn may_serve(&self) -> bool {
        self.status == CheckpointStatus::Complete
            && !matches!(self.verdict, Some(Verdict::Collapsed | Verdict::Untrained))
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

//! The life of a checkpoint as a state machine: states, events and actions. `decide.rs` has the transitions: whatever promotes, refuses,
//! keeps or removes a checkpoint calls [`Life::decide`] first.

use crate::{
    db::{CheckpointRole, CheckpointStatus, DecidedBy, Verdict},
    types::CheckpointId,
};
use kith_eval::Score;

/// The state of one checkpoint, as decisions need it.
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

/// The states of all checkpoints, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Life {
    /// Oldest first.
    pub entries: Vec<Entry>,
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
    /// A checkpoint could not be read when it was wanted.
    Unreadable(CheckpointId),
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
        /// Independent units of them: pairs that share a group or an image are one.
        units: usize,
        /// Whether the live checkpoint has answers to them, too; else it cannot be read.
        live_readable: bool,
        /// Whether it is another checkpoint with the live one's weights.
        is_live_copy: bool,
    },
    /// It is too near its fresh weights to say anything.
    Untrained(String),
    /// Its embeddings collapsed, or are not finite.
    Collapsed(String),
}

/// An action that follows from an event.
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
        /// Why, as a sentence; `None` leaves the stored reason.
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

    /// Checkpoints that training may roll back to: the best on the newest questions, then the other sound ones, newest first.
    pub fn rollback_candidates(&self) -> Vec<CheckpointId> {
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

    /// Checkpoints to evaluate again before a new candidate with `score` is compared with them: the live one and the `max_best` best, where they have
    /// no answers to the same questions.
    pub fn to_evaluate_again(&self, score: &Score, max_best: usize) -> Vec<CheckpointId> {
        let sound = self.entries.iter().filter(|entry| entry.may_serve());
        let mut best: Vec<(f64, &Entry)> = sound
            .filter_map(|entry| Some((entry.score.as_ref()?.share(), entry)))
            .collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let best = best.into_iter().take(max_best).map(|(_, entry)| entry);
        let mut wanted: Vec<CheckpointId> = Vec::new();
        for entry in self.live().into_iter().chain(best) {
            let known = entry.score.as_ref();
            if known.is_none_or(|known| !known.is_comparable(score)) && !wanted.contains(&entry.id)
            {
                wanted.push(entry.id);
            }
        }
        wanted
    }
}

impl Entry {
    /// Whether it cannot be read.
    pub fn is_damaged(&self) -> bool {
        self.verdict == Some(Verdict::Damaged)
    }

    /// Whether nothing speaks against serving it.
    pub fn may_serve(&self) -> bool {
        self.status == CheckpointStatus::Complete
            && !matches!(
                self.verdict,
                Some(Verdict::Collapsed | Verdict::Untrained | Verdict::Damaged)
            )
    }
}

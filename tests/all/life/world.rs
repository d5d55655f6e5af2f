//! The checkpoints of a server, without the server, and the steps that their history is made of.

use kith::{
    checkpoint::{Action, CheckpointError, Entry, Event, Finding, Life, Outcome, Policy},
    db::{CheckpointRole, CheckpointStatus, DecidedBy},
    types::CheckpointId,
};
use kith_eval::Score;
use kith_seed::mix;
use proptest::prelude::*;

use crate::lab::config;

/// Units of the held-out set.
const UNITS: u64 = 30;

/// One step of a history. `usize`s choose a checkpoint, modulo how many there are.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A snapshot of a model that finds `quality` of ten queries is taken and judged.
    Snapshot {
        quality: u64,
        collapsed: bool,
    },
    /// A caller asks for one; it is kept.
    Asked {
        quality: u64,
    },
    Chosen {
        which: usize,
        hold: bool,
    },
    Released,
    Kept {
        which: usize,
        kept: bool,
    },
    Deleted {
        which: usize,
    },
    Named {
        which: usize,
    },
    Used {
        which: usize,
    },
    /// The held-out pairs change: other questions from now on.
    Drift,
    /// The files of one are damaged.
    Damaged {
        which: usize,
    },
    Restart,
}

/// The checkpoints of a server, without the server.
pub(super) struct World {
    pub(super) life: Life,
    pub(super) policy: Policy,
    /// Which model finds how much.
    quality: Vec<(CheckpointId, u64)>,
    pub(super) damaged: Vec<CheckpointId>,
    questions: u64,
    made: u128,
}

impl World {
    pub(super) fn new() -> Self {
        let mut policy = config(&["retention.max_kept=3", "gate.confidence=0.8"]).policy;
        policy.gate.min_pairs = 1;
        let mut world = Self {
            life: Life::default(),
            policy,
            quality: Vec::new(),
            damaged: Vec::new(),
            questions: 0,
            made: 0,
        };
        let first = world.take(0, false);
        let started = Event::Started {
            newest: first,
            live_loads: false,
        };
        world.decide(&started).unwrap();
        world
    }

    fn decide(&mut self, event: &Event) -> Result<Vec<Action>, CheckpointError> {
        loop {
            let actions = self.life.decide(event, &self.policy)?;
            let unreadable = actions.iter().find_map(|action| match action {
                Action::Serve {
                    id,
                    by: DecidedBy::Gate | DecidedBy::Start,
                    ..
                } if self.damaged.contains(id) => Some(*id),
                _ => None,
            });
            let Some(id) = unreadable else {
                actions.iter().for_each(|action| self.life.apply(action));
                return Ok(actions);
            };
            // Whoever carries it out finds that it does not load, writes that down, and asks again.
            self.mark_unreadable(id);
        }
    }

    fn mark_unreadable(&mut self, id: CheckpointId) {
        let marked = self
            .life
            .decide(&Event::Unreadable(id), &self.policy)
            .unwrap();
        marked.iter().for_each(|action| self.life.apply(action));
    }

    /// A new complete checkpoint. Ids go down with time: no decision may lean on their order.
    fn take(&mut self, quality: u64, kept: bool) -> CheckpointId {
        self.made += 1;
        let id = CheckpointId(uuid::Uuid::from_u128(u128::MAX - self.made));
        self.quality.push((id, quality));
        self.life.entries.push(Entry {
            id,
            step: self.made as u64,
            status: CheckpointStatus::Complete,
            role: CheckpointRole::Candidate,
            kept,
            held: false,
            aliased: false,
            in_use: false,
            verdict: None,
            score: None,
        });
        id
    }

    fn score(&self, id: CheckpointId) -> Score {
        let known = self.quality.iter().find(|(known, _)| *known == id);
        let quality = known.map_or(0, |(_, quality)| *quality);
        let name = id.0.as_u64_pair().1;
        let found = (0..UNITS).map(|unit| {
            // What is easy is easy for all; a third of the outcome is each model's own.
            let common = mix(&[self.questions, unit]) % 7;
            let own = mix(&[self.questions, unit, name]) % 4;
            u32::from(common + own < quality)
        });
        Score {
            questions: self.questions.to_string(),
            found: found.collect(),
            asked: vec![1; UNITS as usize],
        }
    }

    /// As the judge does it: the candidate answers, then the live one and the best ones where they have not.
    fn judge(&mut self, id: CheckpointId, collapsed: bool) {
        let mut live_readable = true;
        self.answer(id);
        let score = self.score(id);
        for other in self.life.to_evaluate_again(&score, 2) {
            if self.damaged.contains(&other) {
                self.mark_unreadable(other);
                live_readable &= self.life.live().map(|live| live.id) != Some(other);
            } else {
                self.answer(other);
            }
        }
        let outcome = if collapsed {
            Outcome::Collapsed("it looks so".to_owned())
        } else {
            Outcome::Scored {
                pairs: UNITS as usize,
                units: UNITS as usize,
                live_readable,
                is_live_copy: false,
            }
        };
        self.decide(&Event::Judged { id, outcome }).unwrap();
        let tidied = self.decide(&Event::Tidied).unwrap();
        assert!(
            tidied
                .iter()
                .all(|action| matches!(action, Action::Remove(_)))
        );
    }

    fn answer(&mut self, id: CheckpointId) {
        let score = self.score(id);
        let entry = self.life.entries.iter_mut().find(|entry| entry.id == id);
        entry.unwrap().score = Some(score);
    }

    fn pick(&self, which: usize) -> CheckpointId {
        self.life.entries[which % self.life.entries.len()].id
    }

    fn entry_mut(&mut self, id: CheckpointId) -> &mut Entry {
        let mut entries = self.life.entries.iter_mut();
        entries.find(|entry| entry.id == id).unwrap()
    }

    /// Answers whether a candidate was judged.
    pub(super) fn apply(&mut self, what: &Step) -> bool {
        let taken = self.made;
        match what {
            Step::Snapshot { quality, collapsed } => {
                let id = self.take(*quality, false);
                self.judge(id, *collapsed);
            }
            Step::Asked { quality } => {
                if self.decide(&Event::SnapshotAsked).is_ok() {
                    let id = self.take(*quality, true);
                    self.judge(id, false);
                }
            }
            Step::Chosen { which, hold } => {
                let id = self.pick(*which);
                // Whoever acts verifies the model first.
                if !self.damaged.contains(&id) {
                    let hold = *hold;
                    self.decide(&Event::Chosen { id, hold }).unwrap();
                }
            }
            Step::Released => drop(self.decide(&Event::Released).unwrap()),
            Step::Kept { which, kept } => {
                let (id, kept) = (self.pick(*which), *kept);
                // Beyond the quota it is refused.
                let _ = self.decide(&Event::Kept { id, kept });
            }
            Step::Deleted { which } => self.delete(self.pick(*which)),
            Step::Named { which } => {
                let id = self.pick(*which);
                let aliased = self.entry_mut(id).aliased;
                self.entry_mut(id).aliased = !aliased;
            }
            Step::Used { which } => {
                let id = self.pick(*which);
                let in_use = self.entry_mut(id).in_use;
                self.entry_mut(id).in_use = !in_use;
            }
            Step::Drift => self.questions += 1,
            Step::Damaged { which } => {
                let id = self.pick(*which);
                let whole = self.life.entries.len() - self.damaged_here();
                if whole > 1 {
                    self.damaged.push(id);
                }
            }
            Step::Restart => self.restart(),
        }
        self.made > taken
    }

    fn damaged_here(&self) -> usize {
        let entries = self.life.entries.iter();
        entries.filter(|e| self.damaged.contains(&e.id)).count()
    }

    fn delete(&mut self, id: CheckpointId) {
        let entry = self.life.entry(id).unwrap().clone();
        let refused = entry.role == CheckpointRole::Live || entry.aliased;
        let last_whole = self.life.entries.len() - self.damaged_here() <= 1;
        if last_whole && !refused {
            return;
        }
        assert_eq!(self.decide(&Event::Deleted(id)).is_err(), refused);
    }

    fn restart(&mut self) {
        self.life.entries.iter_mut().for_each(|e| e.in_use = false);
        let whole = |entry: &&Entry| !self.damaged.contains(&entry.id);
        let Some(newest) = self.life.entries.iter().rev().find(whole).map(|e| e.id) else {
            return;
        };
        let live = self.life.live().map(|live| live.id);
        let live_loads = live.is_some_and(|live| !self.damaged.contains(&live));
        self.decide(&Event::Started { newest, live_loads }).unwrap();
        let live = self.life.live().unwrap();
        assert!(
            !self.damaged.contains(&live.id),
            "after a start the live one loads"
        );
        let mut known = self.life.rollback_candidates().into_iter();
        assert!(
            live_loads || live.may_serve() || known.all(|id| self.damaged.contains(&id)),
            "a start does not choose what is known to be unsound"
        );
    }

    /// No kept checkpoint with answers to the current questions is better than the live one, by the gate's test.
    pub(super) fn nothing_kept_is_better(&self) -> Result<(), TestCaseError> {
        let live = self.life.live().unwrap();
        let Some(own) = live.score.as_ref() else {
            return Ok(());
        };
        let readable = |entry: &&Entry| entry.may_serve() && !self.damaged.contains(&entry.id);
        for other in self.life.entries.iter().filter(readable) {
            let theirs = other
                .score
                .as_ref()
                .filter(|s| s.total_found() > own.total_found());
            let finding = theirs.and_then(|theirs| self.policy.gate.compare(theirs, own));
            prop_assert!(
                !matches!(finding, Some(Finding::Better(_))),
                "{:?} is better than the live {:?}",
                other,
                live
            );
        }
        Ok(())
    }
}

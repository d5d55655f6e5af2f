//! The life of a checkpoint as a state machine: random histories, after each of whose events the rules hold.

use kith::{
    checkpoint::{Action, CheckpointError, Entry, Event, Finding, Life, Outcome, Policy},
    db::{CheckpointRole, CheckpointStatus, DecidedBy, Verdict},
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
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let which = 0usize..1000;
    prop_oneof![
        8 => (0u64..10, prop::bool::weighted(0.1))
            .prop_map(|(quality, collapsed)| Snapshot { quality, collapsed }),
        2 => (0u64..10).prop_map(|quality| Asked { quality }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, hold)| Chosen { which, hold }),
        1 => Just(Released),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, kept)| Kept { which, kept }),
        1 => which.clone().prop_map(|which| Deleted { which }),
        1 => which.clone().prop_map(|which| Named { which }),
        1 => which.clone().prop_map(|which| Used { which }),
        1 => Just(Drift),
        1 => which.prop_map(|which| Damaged { which }),
        1 => Just(Restart),
    ]
}

/// The checkpoints of a server, without the server.
struct World {
    life: Life,
    policy: Policy,
    /// Which model finds how much.
    quality: Vec<(CheckpointId, u64)>,
    damaged: Vec<CheckpointId>,
    questions: u64,
    made: u128,
}

impl World {
    fn new() -> Self {
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
        let questions = self.questions.to_string();
        self.answer(id);
        for other in self.life.to_evaluate_again(&questions, 2) {
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
                live_readable,
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
    fn apply(&mut self, what: &Step) -> bool {
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
    fn nothing_kept_is_better(&self) -> Result<(), TestCaseError> {
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

proptest! {
    #[test]
    fn in_any_history_the_rules_of_a_checkpoints_life_hold(
        happenings in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for what in &happenings {
            let before = world.life.clone();
            let judged = world.apply(what);
            let life = &world.life;

            let live: Vec<&Entry> =
                life.entries.iter().filter(|e| e.role == CheckpointRole::Live).collect();
            prop_assert_eq!(live.len(), 1, "exactly one serves after {:?}", what);
            prop_assert_eq!(live[0].status, CheckpointStatus::Complete);
            prop_assert!(life.entries.iter().all(|e| !e.held || e.role == CheckpointRole::Live));

            // A person's choice holds, whatever the machine finds, until a person lifts it or it cannot be read.
            let held = before.live().filter(|live| live.held);
            let person = matches!(what, Step::Chosen { .. } | Step::Released);
            if let Some(held) = held.filter(|held| !person && !world.damaged.contains(&held.id)) {
                prop_assert_eq!((live[0].id, live[0].held), (held.id, true), "after {:?}", what);
            }

            // A checkpoint in use stays until it is deleted by name.
            let by_name = matches!(what, Step::Deleted { .. });
            for entry in before.entries.iter().filter(|_| !by_name) {
                let needed = entry.kept || entry.aliased || entry.in_use || entry.held;
                prop_assert!(!needed || life.entry(entry.id).is_some(), "{:?} lost {:?}", what, entry);
            }
            let newest = before.entries.last().map(|entry| entry.id);
            prop_assert!(by_name || newest.is_none_or(|id| life.entry(id).is_some()));

            // What the gate let serve is not worse than anything that is kept.
            if judged && !live[0].held && !world.damaged.contains(&live[0].id) {
                world.nothing_kept_is_better()?;
                prop_assert!(live[0].id == before.live().unwrap().id || live[0].may_serve());
            }

            // The quota bounds what callers keep, and retention the rest.
            let kept = life.entries.iter().filter(|entry| entry.kept).count();
            prop_assert!(kept <= world.policy.retention.max_kept);
            let needed = |e: &&Entry| e.kept || e.aliased || e.in_use || e.role == CheckpointRole::Live;
            let free = life.entries.len() - life.entries.iter().filter(needed).count();
            let retention = &world.policy.retention;
            let bound = retention.keep_latest + retention.keep_best;
            prop_assert!(!judged || free <= bound, "{} are kept for nobody", free);
        }
    }
}

fn entry(number: u128, found: &[u32]) -> Entry {
    Entry {
        id: CheckpointId(uuid::Uuid::from_u128(number)),
        step: number as u64,
        status: CheckpointStatus::Complete,
        role: CheckpointRole::Candidate,
        kept: false,
        held: false,
        aliased: false,
        in_use: false,
        verdict: None,
        score: Some(Score {
            questions: "today's".to_owned(),
            found: found.to_vec(),
            asked: vec![1; found.len()],
        }),
    }
}

/// A unit's queries found, `share` of 20.
fn found(share: usize) -> Vec<u32> {
    (0..20).map(|unit| u32::from(unit < share)).collect()
}

fn judged(life: &Life, id: CheckpointId) -> Vec<Action> {
    let mut policy = config(&[]).policy;
    policy.gate.min_pairs = 10;
    let outcome = Outcome::Scored {
        pairs: 20,
        live_readable: true,
    };
    life.decide(&Event::Judged { id, outcome }, &policy)
        .unwrap()
}

#[test]
fn after_the_live_one_is_damaged_the_best_known_serves_and_not_the_newest() {
    let mut entries = vec![
        entry(1, &found(12)),
        entry(2, &found(16)),
        entry(3, &found(16)),
        entry(4, &found(0)),
    ];
    entries[2].role = CheckpointRole::Live;
    let verdicts = [
        Verdict::Better,
        Verdict::Better,
        Verdict::Better,
        Verdict::Collapsed,
    ];
    for (entry, verdict) in entries.iter_mut().zip(verdicts) {
        entry.verdict = Some(verdict);
    }
    let ids: Vec<CheckpointId> = entries.iter().map(|entry| entry.id).collect();
    let life = Life { entries };
    let started = Event::Started {
        newest: ids[3],
        live_loads: false,
    };
    let actions = life.decide(&started, &config(&[]).policy).unwrap();
    let chosen = actions.iter().find_map(|action| match action {
        Action::Serve { id, .. } => Some(*id),
        _ => None,
    });
    assert_eq!(chosen, Some(ids[1]));
}

#[test]
fn a_model_that_sinks_a_little_each_time_never_serves() {
    let mut live = entry(1, &found(16));
    live.role = CheckpointRole::Live;
    let mut life = Life {
        entries: vec![live],
    };
    for (number, share) in [(2, 15), (3, 14), (4, 13), (5, 12), (6, 10), (7, 6)] {
        life.entries.push(entry(number, &found(share)));
        let id = life.entries.last().unwrap().id;
        let actions = judged(&life, id);
        assert_eq!(actions.len(), 1, "{actions:?}");
        let Action::Mark { verdict, why, .. } = &actions[0] else {
            panic!("{actions:?}")
        };
        // 4 fewer of 4 discordant units are chance in 1 of 16 cases: below 0.1.
        let worse = if share <= 12 {
            Verdict::Worse
        } else {
            Verdict::Undecided
        };
        assert_eq!(*verdict, worse, "{why:?}");
        let why = why.as_deref().unwrap();
        assert!(
            why.contains(&format!("{share} of 20")) && why.contains("16"),
            "{why}"
        );
        life.apply(&actions[0]);
    }
    assert_eq!(life.live().unwrap().step, 1);
}

#[test]
fn a_held_choice_is_not_replaced_by_a_better_one_and_a_release_lets_it() {
    let mut live = entry(1, &found(2));
    (live.role, live.held) = (CheckpointRole::Live, true);
    let better = entry(2, &found(18));
    let id = better.id;
    let mut life = Life {
        entries: vec![live, better],
    };
    let actions = judged(&life, id);
    let [
        Action::Mark {
            verdict: Verdict::Better,
            why: Some(why),
            ..
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert!(why.contains("choice holds"), "{why}");
    let released = life.decide(&Event::Released, &config(&[]).policy).unwrap();
    released.iter().for_each(|action| life.apply(action));
    let live = life.live().unwrap();
    assert_eq!((live.id, live.held), (id, false));
    assert!(matches!(
        &released[1],
        Action::Serve {
            by: DecidedBy::Gate,
            ..
        }
    ));
}

#[test]
fn with_too_few_held_out_pairs_the_reason_says_so() {
    let mut live = entry(1, &found(9));
    live.role = CheckpointRole::Live;
    let candidate = entry(2, &found(3));
    let id = candidate.id;
    let life = Life {
        entries: vec![live, candidate],
    };
    let outcome = Outcome::Scored {
        pairs: 7,
        live_readable: true,
    };
    let policy = config(&[]).policy;
    let actions = life
        .decide(&Event::Judged { id, outcome }, &policy)
        .unwrap();
    let [
        Action::Mark {
            verdict: Verdict::Untested,
            ..
        },
        Action::Serve { why, .. },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert!(why.contains("7 held-out pairs are too few"), "{why}");
}

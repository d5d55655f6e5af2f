//! Single decisions on checkpoints whose scores are given.

use kith::{
    checkpoint::{Action, Entry, Event, Life, Outcome},
    db::{CheckpointRole, CheckpointStatus, DecidedBy, Verdict},
    types::CheckpointId,
};
use kith_eval::Score;

use crate::lab::config;

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
        units: 20,
        live_readable: true,
        is_live_copy: false,
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

/// What follows for a candidate from 7 held-out pairs, beside a live checkpoint that finds more.
fn judged_by_too_few(is_live_copy: bool) -> Vec<Action> {
    let mut live = entry(1, &found(9));
    live.role = CheckpointRole::Live;
    let candidate = entry(2, &found(3));
    let id = candidate.id;
    let life = Life {
        entries: vec![live, candidate],
    };
    let outcome = Outcome::Scored {
        pairs: 7,
        units: 7,
        live_readable: true,
        is_live_copy,
    };
    let policy = config(&[]).policy;
    life.decide(&Event::Judged { id, outcome }, &policy)
        .unwrap()
}

#[test]
fn with_too_few_held_out_pairs_a_copy_of_what_serves_does_not_take_its_place() {
    let actions = judged_by_too_few(true);
    let [
        Action::Mark {
            verdict: Verdict::Untested,
            why: Some(why),
            ..
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert!(
        why.contains("weights of the checkpoint that serves"),
        "{why}"
    );
}

#[test]
fn with_too_few_held_out_pairs_the_reason_says_so() {
    let actions = judged_by_too_few(false);
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

#[test]
fn what_was_found_damaged_when_it_was_to_serve_stays_so_and_another_serves() {
    let policy = config(&[]).policy;
    let mut live = entry(1, &found(9));
    live.role = CheckpointRole::Live;
    let (better, mut damaged) = (entry(2, &found(16)), entry(3, &found(19)));
    damaged.verdict = Some(Verdict::Damaged);
    let (better_id, id) = (better.id, damaged.id);
    let life = Life {
        entries: vec![live, better, damaged],
    };
    let decided = |pairs, live_readable| {
        let outcome = Outcome::Scored {
            pairs,
            units: pairs,
            live_readable,
            is_live_copy: false,
        };
        life.decide(&Event::Judged { id, outcome }, &policy)
            .unwrap()
    };
    // Too few to compare by: nothing else is known to be better.
    assert_eq!(decided(7, true), []);
    for live_readable in [true, false] {
        let actions = decided(20, live_readable);
        assert!(
            matches!(&actions[..], [Action::Serve { id, .. }] if *id == better_id),
            "{actions:?}"
        );
    }
}

#[test]
fn checkpoints_are_evaluated_again_where_fewer_of_the_same_questions_could_be_asked() {
    let mut live = entry(1, &found(9));
    live.role = CheckpointRole::Live;
    let (live_id, known) = (live.id, live.score.clone().unwrap());
    let life = Life {
        entries: vec![live],
    };
    assert_eq!(life.to_evaluate_again(&known, 2), []);
    // An image is there that cannot be decoded any more.
    let fewer = Score {
        found: known.found[1..].to_vec(),
        asked: known.asked[1..].to_vec(),
        ..known
    };
    assert_eq!(life.to_evaluate_again(&fewer, 2), [live_id]);
}

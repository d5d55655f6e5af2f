//! Random histories: after each step the rules hold.

use kith::{
    checkpoint::Entry,
    db::{CheckpointRole, CheckpointStatus},
};
use proptest::prelude::*;

use super::world::{Step, World};

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

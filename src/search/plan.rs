//! Decides which checkpoint answers, which is embedded next, and which vectors are dropped. It takes facts and returns a decision.

use crate::types::CheckpointId;

/// What is known of a space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) checkpoint: CheckpointId,
    /// Whether all stored images have been gone through once.
    pub(super) complete: bool,
    /// Whether a caller asked for it by name, and it is not up to date for them yet.
    pub(super) wanted: bool,
    /// Whether it was begun because it was live.
    pub(super) was_live: bool,
    /// Place among all spaces by its last use; larger is later. After a start it is the order in which they were begun.
    pub(super) used: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The checkpoint that answers where a search names none.
    pub(super) answering: Option<CheckpointId>,
    /// The live checkpoint has no space yet.
    pub(super) begin: Option<CheckpointId>,
    /// Spaces whose missing images are embedded, the first first.
    pub(super) upkeep: Vec<CheckpointId>,
    /// Spaces that nobody needs.
    pub(super) drop: Vec<CheckpointId>,
}

/// `answering`: the checkpoint that answered so far; `kept`: spaces that may stay besides those that are needed.
///
/// A space that was begun is completed before the next one is, so that answers move on however often checkpoints are promoted.
pub(super) fn plan(
    spaces: &[Facts],
    live: Option<CheckpointId>,
    answering: Option<CheckpointId>,
    kept: usize,
) -> Plan {
    let find = |id: CheckpointId| spaces.iter().find(|space| space.checkpoint == id);
    let known = |id: Option<CheckpointId>| id.and_then(find);
    let unfinished = spaces
        .iter()
        .find(|space| space.was_live && !space.complete && Some(space.checkpoint) != answering);
    let live_space = known(live);
    let newest_complete = || {
        let complete = spaces.iter().filter(|space| space.complete);
        let newest = complete.max_by_key(|space| space.used);
        newest.map(|space| space.checkpoint)
    };
    let answering = match (live_space, known(answering)) {
        (Some(live), _) if live.complete => Some(live.checkpoint),
        (_, Some(before)) => Some(before.checkpoint),
        // After a start.
        (_, None) => newest_complete().or(live),
    };
    let live_is_done = live_space.is_some_and(|live| live.complete);
    let next = unfinished
        .filter(|_| !live_is_done)
        .map(|space| space.checkpoint)
        .or(live);
    let begin = next.filter(|next| find(*next).is_none());
    let mut upkeep: Vec<CheckpointId> = Vec::new();
    let wanted = spaces.iter().filter(|space| space.wanted);
    let wanted = wanted.map(|space| space.checkpoint);
    for id in answering.into_iter().chain(wanted).chain(next) {
        if find(id).is_some() && !upkeep.contains(&id) {
            upkeep.push(id);
        }
    }
    let needed = |id: CheckpointId| [answering, next, live].contains(&Some(id));
    let mut others: Vec<&Facts> = spaces
        .iter()
        .filter(|space| !needed(space.checkpoint))
        .collect();
    others.sort_by_key(|space| std::cmp::Reverse(space.used));
    let drop: Vec<CheckpointId> = others
        .into_iter()
        .skip(kept)
        .map(|space| space.checkpoint)
        .collect();
    upkeep.retain(|id| !drop.contains(id));
    Plan {
        answering,
        begin,
        upkeep,
        drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> CheckpointId {
        CheckpointId(uuid::Uuid::from_u128(number))
    }

    fn space(number: u128, complete: bool) -> Facts {
        Facts {
            checkpoint: id(number),
            complete,
            wanted: false,
            was_live: true,
            used: number as u64,
        }
    }

    #[test]
    fn the_first_live_checkpoint_answers_while_it_is_embedded() {
        let begun = plan(&[], Some(id(1)), None, 2);
        assert_eq!((begun.begin, begun.upkeep), (Some(id(1)), vec![]));
        let partial = plan(&[space(1, false)], Some(id(1)), begun.answering, 2);
        assert_eq!(partial.answering, Some(id(1)));
        assert_eq!((partial.begin, partial.upkeep), (None, vec![id(1)]));
    }

    #[test]
    fn after_a_promotion_the_old_one_answers_until_the_new_one_is_complete() {
        let old = Some(id(1));
        let spaces = [space(1, true)];
        let begun = plan(&spaces, Some(id(2)), old, 2);
        assert_eq!((begun.answering, begun.begin), (old, Some(id(2))));
        let spaces = [space(1, true), space(2, false)];
        let partial = plan(&spaces, Some(id(2)), old, 2);
        assert_eq!(partial.answering, old);
        assert_eq!(partial.upkeep, [id(1), id(2)]);
        let spaces = [space(1, true), space(2, true)];
        let done = plan(&spaces, Some(id(2)), old, 2);
        assert_eq!(done.answering, Some(id(2)));
        assert_eq!((done.upkeep, done.drop), (vec![id(2)], vec![]));
    }

    #[test]
    fn what_was_begun_is_completed_before_the_next_promotion_is_embedded() {
        let spaces = [space(1, true), space(2, false)];
        let next = plan(&spaces, Some(id(3)), Some(id(1)), 2);
        assert_eq!((next.answering, next.begin), (Some(id(1)), None));
        assert_eq!(next.upkeep, [id(1), id(2)]);
    }

    #[test]
    fn a_rollback_to_what_is_embedded_answers_at_once_and_leaves_the_rest() {
        let spaces = [space(1, true), space(2, false)];
        let back = plan(&spaces, Some(id(1)), Some(id(1)), 0);
        assert_eq!(back.answering, Some(id(1)));
        assert_eq!((back.upkeep, back.drop), (vec![id(1)], vec![id(2)]));
    }

    #[test]
    fn spaces_beyond_the_bound_go_those_used_longest_ago_first() {
        let spaces: Vec<Facts> = (1..=5).map(|number| space(number, true)).collect();
        let dropped = plan(&spaces, Some(id(5)), Some(id(5)), 2).drop;
        assert_eq!(dropped, [id(2), id(1)]);
    }

    #[test]
    fn a_space_that_a_caller_wants_is_embedded_before_the_next_live_one() {
        let mut spaces = [space(1, true), space(2, false), space(3, false)];
        (spaces[2].wanted, spaces[2].was_live) = (true, false);
        let wanted = plan(&spaces, Some(id(2)), Some(id(1)), 2);
        assert_eq!(wanted.upkeep, [id(1), id(3), id(2)]);
    }

    #[test]
    fn one_that_is_not_complete_yet_goes_on_answering_after_a_promotion() {
        let spaces = [space(1, false), space(2, false)];
        let partial = plan(&spaces, Some(id(2)), Some(id(1)), 2);
        assert_eq!(partial.answering, Some(id(1)));
        assert_eq!(partial.upkeep, [id(1), id(2)]);
    }

    #[test]
    fn after_a_start_the_newest_complete_one_answers_where_the_live_one_is_not() {
        let spaces = [space(1, true), space(2, true), space(3, false)];
        assert_eq!(plan(&spaces, None, None, 9).answering, Some(id(2)));
        assert_eq!(plan(&spaces, Some(id(3)), None, 9).answering, Some(id(2)));
    }
}

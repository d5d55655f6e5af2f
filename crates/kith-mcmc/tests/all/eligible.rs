//! Compares the search for an eligible negative with its definition, slot by slot.

use std::time::{Duration, Instant};

use kith_mcmc::{GroupKey, ImageKey, PairEntry, PairGraph, PairKey, Side, SlotKey};
use proptest::prelude::*;

fn entry(anchor: u32, positive: u32, group: Option<u32>) -> PairEntry {
    PairEntry::new([ImageKey(anchor), ImageKey(positive)], group.map(GroupKey))
}

fn graph(pairs: impl IntoIterator<Item = (u32, u32, Option<u32>)>) -> PairGraph {
    let mut graph = PairGraph::default();
    for (key, (anchor, positive, group)) in (0..).zip(pairs) {
        graph.insert(PairKey(key), entry(anchor, positive, group));
    }
    graph
}

/// The definition: every slot against every slot.
fn by_definition(graph: &PairGraph, keys: u32) -> bool {
    let slots = || {
        (0..keys).flat_map(|key| {
            [Side::Anchor, Side::Positive].map(|side| SlotKey::new(PairKey(key), side))
        })
    };
    slots().any(|anchor| {
        let positives = graph.positives(anchor);
        slots().any(|other| !positives.excludes(other))
    })
}

#[test]
fn one_group_or_one_shared_image_has_no_negative_and_a_stranger_brings_one() {
    for (name, mut graph) in [
        ("nothing", graph([])),
        ("one pair", graph([(1, 2, None)])),
        (
            "one group",
            graph((0..9).map(|i| (2 * i, 2 * i + 1, Some(5)))),
        ),
        ("one image in all", graph((1..9).map(|i| (0, i, None)))),
        (
            "one image, twice in one",
            graph((0..9).map(|i| (0, i, None))),
        ),
    ] {
        assert!(!graph.has_eligible_negative(), "{name}");
        graph.insert(PairKey(90), entry(100, 101, None));
        let stranger = graph.len() > 1;
        assert_eq!(graph.has_eligible_negative(), stranger, "{name}");
        graph.remove(PairKey(90));
        assert!(!graph.has_eligible_negative(), "{name}, without it again");
    }
}

#[test]
fn an_image_that_two_groups_share_reaches_both_and_its_partners_do_not() {
    let mut graph = graph([(1, 2, Some(1)), (1, 3, Some(2)), (4, 5, Some(1))]);
    assert!(graph.has_eligible_negative(), "5 may be 3's");
    graph.remove(PairKey(1));
    assert!(!graph.has_eligible_negative(), "one group is left");
}

#[test]
fn a_hundred_thousand_pairs_of_one_group_are_searched_once_and_not_at_every_question() {
    let mut graph = graph((0..100_000).map(|i| (2 * i, 2 * i + 1, Some(5))));
    graph.insert(PairKey(200_000), entry(900_000, 900_001, Some(5)));
    let ask = |graph: &PairGraph, times: usize| {
        let began = Instant::now();
        let found = (0..times).filter(|_| graph.has_eligible_negative()).count();
        // Searching anew at each question would take hours.
        assert!(began.elapsed() < Duration::from_secs(60));
        found
    };
    assert_eq!(ask(&graph, 100_000), 0);
    graph.insert(PairKey(200_001), entry(900_002, 900_003, None));
    assert_eq!(ask(&graph, 100_000), 100_000);
}

/// A change: a pair put in place of the one under its key, or (`None`) taken away.
type Change = (u32, Option<(u32, u32, Option<u32>)>);

const KEYS: u32 = 7;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Few images and groups, so that sets without a negative are common.
    let pair = (0..6_u32, 0..6_u32, prop::option::weighted(0.6, 0..2_u32));
    prop::collection::vec((0..KEYS, prop::option::weighted(0.7, pair)), 1..40)
}

proptest! {
    #[test]
    fn the_answer_follows_the_definition_through_all_changes(changes in changes(), lazy: bool, directed: bool) {
        let mut graph = if directed { PairGraph::directed() } else { PairGraph::default() };
        for (at, (key, pair)) in changes.into_iter().enumerate() {
            graph.remove(PairKey(key));
            if let Some((anchor, positive, group)) = pair {
                graph.insert(PairKey(key), entry(anchor, positive, group));
            }
            // Asked after each change, or seldom: what was found before may be out of date by many.
            if !lazy || at % 5 == 0 {
                prop_assert_eq!(graph.has_eligible_negative(), by_definition(&graph, KEYS));
            }
        }
    }
}

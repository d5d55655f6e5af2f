//! The graph of known positives.

use kith_mcmc::{GroupKey, ImageKey, PairEntry, PairGraph, PairKey, Side, SidedImage, SlotKey};

fn slot(packed: u32) -> SlotKey {
    SlotKey::from_packed(packed)
}

fn graph(pairs: &[(u32, u32, Option<u32>)]) -> PairGraph {
    let mut graph = PairGraph::default();
    for (key, &(anchor, positive, group)) in (0..).zip(pairs) {
        let entry = PairEntry::new([ImageKey(anchor), ImageKey(positive)], group.map(GroupKey));
        graph.insert(PairKey(key), entry);
    }
    graph
}

/// The pairs whose slot of `side` is excluded for the anchor slot of pair 0.
fn excluded(graph: &PairGraph, side: Side) -> Vec<u32> {
    let positives = graph.positives(SlotKey::new(PairKey(0), Side::Anchor));
    (0..graph.len() as u32)
        .filter(|pair| positives.excludes(SlotKey::new(PairKey(*pair), side)))
        .collect()
}

#[test]
fn known_positives_are_the_pairs_that_touch_the_anchors_pair_or_share_a_group() {
    let graph = graph(&[
        (1, 2, Some(7)),
        (3, 4, None),    // a stranger
        (1, 5, None),    // shares the anchor's image
        (6, 2, None),    // shares the positive's image
        (8, 9, Some(7)), // shares the group
        (5, 10, None),   // its first image is a positive by pair 2, its second is none
        (9, 11, None),   // its first image shares the group by pair 4
        (12, 13, Some(8)),
    ]);
    assert_eq!(excluded(&graph, Side::Anchor), [0, 2, 3, 4, 5, 6]);
    assert_eq!(excluded(&graph, Side::Positive), [0, 2, 3, 4]);
    assert!(
        graph.positives(slot(0)).excludes(slot(2 * 99)),
        "a slot whose pair was removed"
    );
    assert!(
        graph.positives(slot(2 * 99)).excludes(slot(2)),
        "an anchor whose pair was removed"
    );
}

#[test]
fn positives_are_found_from_an_image_of_very_many_pairs_as_well() {
    let mut pairs = vec![(1, 2, None), (3, 4, None)];
    pairs.extend((0..50).map(|other| (3, 100 + other, None)));
    assert_eq!(excluded(&graph(&pairs), Side::Anchor), [0]);
    pairs.push((3, 2, None));
    assert_eq!(
        excluded(&graph(&pairs), Side::Anchor).len(),
        53,
        "image 3 is now a positive in all of its slots"
    );
}

fn on(side: Side, image: u32) -> SidedImage {
    let image = ImageKey(image);
    SidedImage { image, side }
}

#[test]
fn where_pairs_are_directed_candidates_are_on_the_other_side_and_degrees_are_those_of_a_side() {
    let mut graph = PairGraph::directed();
    for (key, images) in (0..).zip([[1, 2], [1, 3], [4, 1], [5, 5], [6, 7]]) {
        graph.insert(PairKey(key), PairEntry::new(images.map(ImageKey), None));
    }
    let degree = |side, image| graph.log_degree(on(side, image)).exp().round() as u32;
    assert_eq!([degree(Side::Anchor, 1), degree(Side::Positive, 1)], [2, 1]);
    assert_eq!([degree(Side::Anchor, 5), degree(Side::Positive, 5)], [1, 1]);
    assert!(graph.holds(on(Side::Positive, 7)) && !graph.holds(on(Side::Anchor, 7)));
    assert_eq!(graph.sided_images().len(), 9, "1 and 5 stand on both sides");

    // Pair 4's anchor meets the positives of the others, and its positive meets their anchors.
    for side in Side::BOTH {
        let positives = graph.positives(SlotKey::new(PairKey(4), side));
        for pair in (0..4).map(PairKey) {
            assert!(positives.excludes(SlotKey::new(pair, side)));
            assert!(!positives.excludes(SlotKey::new(pair, side.other())));
        }
    }
    // A known positive is one on both sides: 4 is paired with 1, which it has on its own side too.
    let positives = graph.positives(SlotKey::new(PairKey(2), Side::Positive));
    assert!(positives.excludes_image(on(Side::Anchor, 1)));
    assert!(!positives.excludes_image(on(Side::Anchor, 6)));
    graph.remove(PairKey(2));
    assert!(!graph.holds(on(Side::Positive, 1)) && graph.holds(on(Side::Anchor, 1)));
}

#[test]
fn degrees_count_slots_and_follow_removals() {
    let mut graph = graph(&[(1, 2, None), (1, 3, Some(4)), (5, 5, None)]);
    assert_eq!((graph.len(), graph.images()), (3, 4));
    let degree =
        |graph: &PairGraph, image| graph.log_degree(on(Side::Anchor, image)).exp().round() as u32;
    assert_eq!(
        [1, 2, 3, 5].map(|image| degree(&graph, image)),
        [2, 1, 1, 2]
    );

    let entry = graph.get(PairKey(1)).expect("it was inserted");
    graph.insert(PairKey(1), entry);
    assert_eq!(degree(&graph, 1), 2, "inserting again changes nothing");

    assert_eq!(graph.remove(PairKey(1)), Some(entry));
    assert_eq!(graph.remove(PairKey(1)), None);
    assert_eq!(
        (degree(&graph, 1), graph.images(), graph.image(slot(3))),
        (1, 3, None)
    );
    graph.remove(PairKey(2));
    assert_eq!(graph.images(), 2);
    assert_eq!(graph.image(slot(1)), Some(ImageKey(2)));
}

#[test]
fn a_removed_pair_takes_its_group_with_it() {
    let mut graph = graph(&[(1, 2, Some(7)), (3, 4, Some(7)), (3, 5, None)]);
    assert_eq!(excluded(&graph, Side::Anchor), [0, 1, 2]);
    graph.remove(PairKey(1));
    assert!(
        !graph
            .positives(slot(0))
            .excludes(SlotKey::new(PairKey(2), Side::Anchor))
    );
}

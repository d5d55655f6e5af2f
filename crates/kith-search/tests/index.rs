//! What an index finds, beside a plain sort of all cosines.

use std::collections::{BTreeMap, BTreeSet};

use kith_search::{Hit, Index, Key, Progress};
use kith_seed::mix;

const DIM: usize = 24;

/// A unit vector near one of 40 centres, as embeddings of groups lie.
fn vector(key: Key) -> Vec<f32> {
    let value = |seed: u64, place: usize| {
        (mix(&[seed, place as u64]) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let centre = u64::from(key % 40);
    let values = (0..DIM).map(|at| value(centre, at) + 0.4 * value(1000 + u64::from(key), at));
    let values: Vec<f32> = values.collect();
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter().map(|value| value / norm).collect()
}

/// The nearest by a plain sort.
fn sorted(vectors: &BTreeMap<Key, Vec<f32>>, query: &[f32], k: usize) -> Vec<Hit> {
    let cosine = |vector: &[f32]| -> f32 { vector.iter().zip(query).map(|(a, b)| a * b).sum() };
    let hits = vectors.iter().map(|(key, vector)| Hit {
        key: *key,
        score: cosine(vector),
    });
    let mut hits: Vec<Hit> = hits.collect();
    hits.sort_by(|a, b| b.cmp(a));
    hits.truncate(k);
    hits
}

/// Asserts that `found` are the nearest, but for the order of those whose cosines differ by rounding.
fn check(found: &[Hit], all: &BTreeMap<Key, Vec<f32>>, query: &[f32], k: usize) {
    let right = sorted(all, query, k);
    assert_eq!(found.len(), right.len());
    for (found, right) in found.iter().zip(&right) {
        assert!(
            (found.score - right.score).abs() < 1e-5,
            "{found:?} {right:?}"
        );
    }
    let keys: BTreeSet<Key> = found.iter().map(|hit| hit.key).collect();
    assert_eq!(keys.len(), found.len(), "one was found twice");
    assert!(keys.iter().all(|key| all.contains_key(key)));
}

#[test]
fn a_scan_finds_what_a_sort_finds_after_any_changes() {
    let (mut index, mut all) = (Index::new(DIM), BTreeMap::new());
    for step in 0..4000_u32 {
        let key = mix(&[u64::from(step)]) as u32 % 1500;
        if step % 4 == 3 {
            assert_eq!(index.remove(key), all.remove(&key).is_some());
        } else {
            // Every key has several vectors over time.
            let vector = vector(key + 10_000 * (step % 3));
            index.insert(key, &vector);
            all.insert(key, vector);
        }
    }
    assert_eq!(index.len(), all.len());
    let mut listed: Vec<Key> = index.keys().collect();
    listed.sort_unstable();
    assert!(listed.iter().eq(all.keys()));
    for seed in 0..20 {
        let query = vector(77 * seed);
        for k in [0, 1, 10, 5000] {
            check(&index.nearest(&query, k), &all, &query, k);
        }
        let some: Vec<Key> = (0..1500).step_by(7).collect();
        let mut subset = all.clone();
        subset.retain(|key, _| key % 7 == 0);
        let found = index.nearest_of(&some, &query, 10);
        check(&found, &subset, &query, 10);
        assert!(found.windows(2).all(|two| two[0].score >= two[1].score));
    }
}

#[test]
fn a_graph_finds_nearly_all_and_knows_what_changed_after_it() {
    let (mut index, mut all) = (Index::new(DIM), BTreeMap::new());
    let put = |index: &mut Index, all: &mut BTreeMap<Key, Vec<f32>>, key, vector: Vec<f32>| {
        index.insert(key, &vector);
        all.insert(key, vector);
    };
    for key in 0..6000 {
        put(&mut index, &mut all, key, vector(key));
    }
    assert!(index.graph_input(6000).is_none());
    let input = index.graph_input(5999).unwrap();
    // While the graph is built, vectors come, go and change.
    for key in 6000..6200 {
        put(&mut index, &mut all, key, vector(key));
    }
    for key in 100..200 {
        assert!(index.remove(key));
        all.remove(&key);
    }
    for key in 300..400 {
        put(&mut index, &mut all, key, vector(key + 50_000));
    }
    let progress = Progress::default();
    assert!(progress.share() < f64::EPSILON);
    index.set_graph(input.build(&progress));
    assert!((progress.share() - 1.0).abs() < f64::EPSILON);
    assert_eq!((index.len(), index.in_graph()), (6100, 5800));
    // And after it was built.
    for key in 500..600 {
        assert!(index.remove(key));
        assert!(!index.remove(key));
        all.remove(&key);
    }
    assert_eq!(index.len(), all.len());
    assert_eq!(index.get(150), None);
    assert_eq!(index.get(350).unwrap(), vector(50_350));
    let (mut found, mut asked) = (0, 0);
    for seed in 0..100 {
        let query = vector(90_000 + seed);
        let hits = index.nearest(&query, 10);
        assert_eq!(hits.len(), 10);
        assert!(hits.iter().all(|hit| all.contains_key(&hit.key)));
        let right = sorted(&all, &query, 10);
        let is_right = |hit: &&Hit| right.iter().any(|right| right.key == hit.key);
        found += hits.iter().filter(is_right).count();
        asked += right.len();
        // More than the graph is asked for: exact.
        check(&index.nearest(&query, 500), &all, &query, 500);
    }
    assert!(found * 100 >= asked * 98, "{found} of {asked}");
    assert!(index.bytes() > 6000 * DIM * 4);
}

#[test]
fn a_map_puts_what_is_near_next_to_each_other_and_keeps_to_an_earlier_map() {
    let mut index = Index::new(DIM);
    for key in 0..400 {
        index.insert(key, &vector(key));
    }
    let told = std::cell::Cell::new(0.0_f32);
    let places = index
        .projection_input(1000)
        .project(&|_| None, &|share| told.set(share));
    assert!(told.get() > 0.9);
    assert_eq!(places.len(), 400);
    assert!(
        places
            .iter()
            .flat_map(|(_, place)| place)
            .all(|value| value.abs() <= 1.0)
    );
    let map: BTreeMap<Key, [f32; 2]> = places.into_iter().collect();
    // Vectors of one centre share the rest of 40.
    let mut of_centre = 0;
    for (key, place) in &map {
        let distance = |other: &[f32; 2]| (place[0] - other[0]).hypot(place[1] - other[1]);
        let others = map.iter().filter(|(other, _)| *other != key);
        let nearest = others.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        of_centre += u32::from(nearest.unwrap().0 % 40 == key % 40);
    }
    assert!(
        of_centre > 360,
        "{of_centre} of 400 lie beside one of their centre"
    );

    let again = index
        .projection_input(1000)
        .project(&|key| map.get(&key).copied(), &|_| ());
    let moved = again
        .iter()
        .map(|(key, [x, y])| (x - map[key][0]).hypot(y - map[key][1]));
    let mean = moved.sum::<f32>() / 400.0;
    assert!(mean < 0.25, "the points moved by {mean}");
    let few = index.projection_input(7).project(&|_| None, &|_| ());
    assert_eq!(few.len(), 7);
}

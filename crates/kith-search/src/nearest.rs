//! The nearest of many, kept while their scores come in.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// What a caller calls a vector.
pub type Key = u32;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which vector.
    pub key: Key,
    /// Its cosine with the query, from -1 to 1.
    pub score: f32,
}

impl Eq for Hit {}

impl Ord for Hit {
    /// The better hit is the greater: by score, then the older key.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| other.key.cmp(&self.key))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `k` best hits so far.
#[derive(Debug)]
pub(crate) struct Nearest {
    k: usize,
    /// The worst on top.
    kept: BinaryHeap<Reverse<Hit>>,
}

impl Nearest {
    pub(crate) fn new(k: usize) -> Self {
        Self {
            k,
            kept: BinaryHeap::new(),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, hit: Hit) {
        if self.kept.len() < self.k {
            self.kept.push(Reverse(hit));
        } else if let Some(mut worst) = self.kept.peek_mut()
            && hit > worst.0
        {
            *worst = Reverse(hit);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        other.kept.into_iter().for_each(|hit| self.add(hit.0));
        self
    }

    /// The best first.
    pub(crate) fn into_hits(self) -> Vec<Hit> {
        let hits = self.kept.into_sorted_vec();
        hits.into_iter().map(|hit| hit.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order_and_equal_scores_by_key() {
        let mut halves = [Nearest::new(3), Nearest::new(3)];
        let scores = [(5, 0.5), (4, 0.9), (9, 0.9), (1, -1.0), (7, 0.9), (2, 0.1)];
        for (at, (key, score)) in scores.into_iter().enumerate() {
            halves[at % 2].add(Hit { key, score });
        }
        let [first, second] = halves;
        let hits = first.merge(second).into_hits();
        let keys: Vec<Key> = hits.into_iter().map(|hit| hit.key).collect();
        assert_eq!(keys, [4, 7, 9]);
        let mut none = Nearest::new(0);
        none.add(Hit { key: 1, score: 1.0 });
        assert_eq!(none.into_hits(), []);
    }
}

//! The order in which pairs are drawn: epochs without replacement, shuffled by a hash, so that an epoch and a cursor determine the rest.
//! A pair may be left out of some epochs; another hash chooses them.

use std::{collections::BTreeSet, ops::Bound};

use kith_mcmc::PairKey;
use kith_seed::{mix, unit};

/// Pairs that a batch needs: those of a single one have no negatives.
pub(super) const MIN_BATCH: usize = 2;

/// A position in the sequence of draws. With the same pairs, equal positions are followed by equal draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the epoch in progress.
    pub(super) epoch: u64,
    /// Order key of the last pair it drew.
    pub(super) cursor: Option<(u64, u32)>,
}

/// The pairs in the order of the current epoch. The hash of a new pair decides whether it lies ahead of the cursor (it is drawn in this
/// epoch) or behind it (it is drawn from the next one on).
#[derive(Debug)]
pub(super) struct Epoch {
    seed: u64,
    position: Position,
    order: BTreeSet<(u64, u32)>,
}

impl Epoch {
    /// An epoch without pairs, at `position`.
    pub(super) fn new(seed: u64, position: Position) -> Self {
        Self {
            seed,
            position,
            order: BTreeSet::new(),
        }
    }

    pub(super) fn insert(&mut self, pair: PairKey) {
        self.order.insert(self.key(pair.0));
    }

    pub(super) fn remove(&mut self, pair: PairKey) {
        self.order.remove(&self.key(pair.0));
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The next `batch` pairs, or all of an epoch if it has fewer. The rest of an epoch that is smaller than a batch is not drawn: those pairs
    /// are shuffled again with all others. `share` is the share of the epochs that a pair is part of, above 0. Epochs that hold too few pairs to
    /// learn from are passed over: with one heavy pair among light ones they are nearly all.
    pub(super) fn draw(&mut self, batch: usize, share: impl Fn(PairKey) -> f64) -> Vec<PairKey> {
        let wanted = batch.min(self.order.len());
        let mut drawn = self.ahead(wanted, &share);
        if drawn.len() < wanted {
            drawn.clear();
        }
        while drawn.len() < wanted.min(MIN_BATCH) {
            self.begin_next();
            drawn = self.ahead(wanted, &share);
        }
        if let Some(last) = drawn.last() {
            self.position.cursor = Some(*last);
        }
        drawn.into_iter().map(|(_, pair)| PairKey(pair)).collect()
    }

    /// Goes back to an earlier position, as if nothing had been drawn since.
    pub(super) fn rewind(&mut self, position: Position) {
        self.position = position;
        self.order = self.order.iter().map(|(_, pair)| self.key(*pair)).collect();
    }

    fn ahead(&self, wanted: usize, share: &impl Fn(PairKey) -> f64) -> Vec<(u64, u32)> {
        let from = self
            .position
            .cursor
            .map_or(Bound::Unbounded, Bound::Excluded);
        self.order
            .range((from, Bound::Unbounded))
            .filter(|(_, pair)| self.lot(*pair) < share(PairKey(*pair)))
            .take(wanted)
            .copied()
            .collect()
    }

    fn begin_next(&mut self) {
        self.position = Position {
            epoch: self.position.epoch + 1,
            cursor: None,
        };
        self.order = self.order.iter().map(|(_, pair)| self.key(*pair)).collect();
    }

    /// A number in [0, 1): the pair is part of the epoch if its share is larger.
    fn lot(&self, pair: u32) -> f64 {
        let (seed, epoch) = (self.seed, self.position.epoch);
        let purpose = u64::from_be_bytes(*b"   share");
        unit(mix(&[seed, epoch, purpose, u64::from(pair)]))
    }

    fn key(&self, pair: u32) -> (u64, u32) {
        let hash = mix(&[self.seed, self.position.epoch, u64::from(pair)]);
        (hash, pair)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// All pairs are part of every epoch.
    const EVERY: fn(PairKey) -> f64 = |_| 1.0;
    const START: Position = Position {
        epoch: 0,
        cursor: None,
    };

    fn epoch(seed: u64, position: Position, pairs: impl IntoIterator<Item = u32>) -> Epoch {
        let mut epoch = Epoch::new(seed, position);
        pairs
            .into_iter()
            .for_each(|pair| epoch.insert(PairKey(pair)));
        epoch
    }

    proptest! {
        #[test]
        fn an_epoch_draws_no_pair_twice_and_leaves_less_than_a_batch(
            seed: u64, pairs in 1u32..200, batch in 1usize..40,
        ) {
            let mut epoch = epoch(seed, START, 0..pairs);
            for number in 0..3 {
                let mut seen = HashSet::new();
                for _ in 0..(pairs as usize / batch).max(1) {
                    for pair in epoch.draw(batch, EVERY) {
                        prop_assert!(seen.insert(pair));
                    }
                    prop_assert_eq!(epoch.position().epoch, number);
                }
                prop_assert_eq!(seen.len(), (pairs as usize / batch * batch).max(batch.min(pairs as usize)));
            }
        }

        #[test]
        fn a_run_that_stops_anywhere_draws_on_as_if_it_had_not(
            seed: u64, pairs in 1u32..100, batch in 1usize..20, stop in 0usize..30,
        ) {
            let mut straight = epoch(seed, START, 0..pairs);
            (0..stop).for_each(|_| drop(straight.draw(batch, EVERY)));
            // The order of arrival must not matter either.
            let mut resumed = epoch(seed, straight.position(), (0..pairs).rev());
            for _ in 0..10 {
                prop_assert_eq!(straight.draw(batch, EVERY), resumed.draw(batch, EVERY));
                prop_assert_eq!(straight.position(), resumed.position());
            }
        }

        #[test]
        fn what_was_drawn_and_taken_back_is_drawn_again(
            seed: u64, pairs in 1u32..60, batch in 1usize..20, before in 0usize..9, ahead in 0usize..9,
        ) {
            let mut epoch = epoch(seed, START, 0..pairs);
            (0..before).for_each(|_| drop(epoch.draw(batch, EVERY)));
            let position = epoch.position();
            let first: Vec<_> = (0..ahead).map(|_| epoch.draw(batch, EVERY)).collect();
            epoch.rewind(position);
            let again: Vec<_> = (0..ahead).map(|_| epoch.draw(batch, EVERY)).collect();
            prop_assert_eq!(first, again);
        }

        #[test]
        fn a_pair_that_joins_is_drawn_by_the_end_of_the_next_epoch_and_one_that_leaves_is_not(
            seed: u64, before in 0usize..9,
        ) {
            let mut epoch = epoch(seed, START, 0..40);
            (0..before).for_each(|_| drop(epoch.draw(4, EVERY)));
            epoch.insert(PairKey(1000));
            epoch.remove(PairKey(7));
            let mut later = HashSet::new();
            while epoch.position().epoch < 2 {
                later.extend(epoch.draw(4, EVERY));
            }
            prop_assert!(later.contains(&PairKey(1000)));
            prop_assert!(!later.contains(&PairKey(7)));
        }
    }

    #[test]
    fn a_pair_is_part_of_its_share_of_the_epochs_wherever_a_run_stops() {
        let share = |pair: PairKey| f64::from(pair.0 % 4 + 1) / 4.0;
        let mut straight = epoch(5, START, 0..64);
        let (mut drawn, mut last) = ([0_u32; 4], START);
        while straight.position().epoch < 400 {
            let mut resumed = epoch(5, last, (0..64).rev());
            let pairs = straight.draw(4, share);
            assert_eq!(resumed.draw(4, share), pairs);
            last = straight.position();
            pairs
                .iter()
                .for_each(|pair| drawn[pair.0 as usize % 4] += 1);
        }
        for (quarters, times) in (1..).zip(drawn) {
            // Sixteen pairs in 400 epochs, of which up to three of 40 pairs are left over. Four standard errors of a half are 160.
            let expected = 1600.0 * f64::from(quarters);
            let ratio = f64::from(times) / expected;
            assert!((0.85..1.05).contains(&ratio), "{quarters}/4: {times}");
        }
    }

    #[test]
    fn epochs_with_a_single_pair_are_passed_over_wherever_a_run_stops() {
        // The shares of a pair of weight 1000 and one of weight 1.
        let share = |pair: PairKey| [1.0, 0.002][pair.0 as usize];
        let mut straight = epoch(5, START, 0..2);
        let mut number = 0;
        for _ in 0..5 {
            let mut resumed = epoch(5, straight.position(), 0..2);
            let drawn = straight.draw(8, share);
            assert_eq!(drawn.len(), 2);
            assert_eq!(resumed.draw(8, share), drawn);
            assert_eq!(resumed.position(), straight.position());
            number = straight.position().epoch;
        }
        // Every 500th epoch holds both; five of them are 2,500 epochs, give or take 1,118.
        assert!((500..6000).contains(&number), "{number}");
    }

    #[test]
    fn a_lone_pair_is_drawn_alone() {
        let mut epoch = epoch(5, START, 7..8);
        assert_eq!(epoch.draw(8, EVERY), [PairKey(7)]);
        assert_eq!(epoch.draw(8, EVERY), [PairKey(7)]);
    }

    #[test]
    fn epochs_are_shuffled_differently() {
        let mut epoch = epoch(3, START, 0..64);
        let first = epoch.draw(64, EVERY);
        assert_ne!(first, epoch.draw(64, EVERY));
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        let mut epoch = Epoch::new(1, START);
        assert!(epoch.draw(8, EVERY).is_empty());
        assert_eq!(epoch.position(), START);
    }
}

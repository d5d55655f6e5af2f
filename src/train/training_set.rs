//! The pairs that are trained on: which there are, how they are related, and the order in which they are drawn.

use std::collections::HashSet;

use super::{
    context::Context,
    epoch::{Epoch, Position},
    feed::{Changes, Feed},
    recent::Recent,
};
use crate::{checkpoint::RecentDraws, db::DbError};
use kith_mcmc::{ImageKey, PairGraph, PairKey, Recency};

/// The trained pairs, kept in step with the database.
pub(super) struct TrainingSet {
    pub(super) graph: PairGraph,
    epoch: Epoch,
    recent: Recent,
    feed: Feed,
}

/// A position in the sequence of all draws. With the same pairs, equal positions are followed by equal draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DrawPosition {
    pub(super) all: Position,
    /// `None`: none of the pairs that are there is recent.
    pub(super) recent: Option<RecentDraws>,
}

/// The pairs of a batch, and how they were drawn.
#[derive(Debug, PartialEq)]
pub(super) struct Drawn {
    pub(super) pairs: Vec<PairKey>,
    pub(super) recency: Recency,
}

/// Pairs that left the training set, and their images.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) pairs: HashSet<PairKey>,
    pub(super) images: Vec<ImageKey>,
}

impl TrainingSet {
    /// Reads all trained pairs.
    pub(super) fn read(
        context: &Context,
        seed: u64,
        position: DrawPosition,
    ) -> Result<Self, DbError> {
        let run = &context.config.run;
        let mut set = Self {
            graph: if context.config.encoder.towers > 1 {
                PairGraph::directed()
            } else {
                PairGraph::default()
            },
            epoch: Epoch::new(seed, position.all),
            recent: Recent::new(
                seed,
                (run.recent_share, run.recent_steps),
                position.recent.unwrap_or_default(),
            ),
            feed: Feed::default(),
        };
        let all = set.feed.fill(context)?;
        set.follow(context, all);
        if position.recent.is_none() {
            set.recent.settle(&set.graph);
        }
        Ok(set)
    }

    /// Takes in one page of what is new, if it is time to look; returns what was removed.
    pub(super) fn poll(&mut self, context: &Context) -> Result<Removed, DbError> {
        let changes = self.feed.poll(context)?.unwrap_or_default();
        Ok(self.follow(context, changes))
    }

    /// Takes in all that is new; returns what was removed. Afterwards the database may forget these erasures: see
    /// [`TrainingSet::prune_log`].
    pub(super) fn catch_up(&mut self, context: &Context) -> Result<Removed, DbError> {
        let changes = self.feed.catch_up(context)?;
        Ok(self.follow(context, changes))
    }

    /// Lets the database forget the erasures that were taken in. A restart finds out from the remaining pairs which chains must go.
    pub(super) fn prune_log(&self, context: &Context) -> Result<(), DbError> {
        self.feed.prune(context)
    }

    /// The pairs of the batch of `step`, at most `batch`. Pairs lighter than the mean are left out of some epochs, and recent ones come more often.
    pub(super) fn draw(&mut self, batch: usize, step: u64) -> Drawn {
        self.recent.age(step, &self.graph);
        let (graph, draws) = (&self.graph, self.graph.draws());
        let share_of = |pair| {
            graph
                .get(pair)
                .map_or(1.0, |entry| draws.share.of(entry.weight))
        };
        let Some(odds) = self.recent.odds(batch, &draws) else {
            return Drawn {
                pairs: self.epoch.draw(batch, share_of),
                recency: Recency::NONE,
            };
        };
        let number = self.recent.number(&odds, batch, step);
        let recent = &self.recent;
        let share_of_others = |pair| {
            if recent.is_recent(pair) {
                0.0
            } else {
                share_of(pair)
            }
        };
        let mut pairs = self.epoch.draw(batch - number, share_of_others);
        pairs.extend(self.recent.draw(number, share_of));
        Drawn {
            pairs,
            recency: self.recent.recency(&odds),
        }
    }

    /// Number of pairs.
    pub(super) fn len(&self) -> usize {
        self.epoch.len()
    }

    /// Number of recent pairs.
    pub(super) fn recent(&self) -> usize {
        self.recent.len()
    }

    pub(super) fn position(&self) -> DrawPosition {
        DrawPosition {
            all: self.epoch.position(),
            recent: Some(self.recent.draws()),
        }
    }

    /// Goes back to an earlier position, as if nothing had been drawn since.
    pub(super) fn rewind(&mut self, position: DrawPosition) {
        self.epoch.rewind(position.all);
        match position.recent {
            Some(draws) => self.recent.rewind(draws, &self.graph),
            None => self.recent.settle(&self.graph),
        }
    }

    /// Takes in what is new, and follows the new pairs to their effect.
    fn follow(&mut self, context: &Context, changes: Changes) -> Removed {
        context.pair_effect.posted(&changes.posted);
        context.pair_effect.erased(&changes.erased);
        self.apply(changes)
    }

    fn apply(&mut self, changes: Changes) -> Removed {
        for (pair, entry) in changes.added {
            self.graph.insert(pair, entry);
            self.epoch.insert(pair);
            self.recent.insert(pair, &entry);
        }
        let mut removed = Removed {
            pairs: changes.erased.into_iter().collect(),
            images: Vec::new(),
        };
        for pair in &removed.pairs {
            self.epoch.remove(*pair);
            if let Some(entry) = self.graph.remove(*pair) {
                self.recent.remove(*pair, &entry);
                removed.images.extend(entry.images);
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::PairEntry;

    const BATCH: usize = 8;
    /// More than can be recent by the bound of one draw in 32 batches.
    const OLD: u32 = 2000;

    fn position() -> DrawPosition {
        DrawPosition {
            all: Position {
                epoch: 0,
                cursor: None,
            },
            recent: Some(RecentDraws {
                after: OLD,
                next: OLD,
                ..RecentDraws::default()
            }),
        }
    }

    fn set(pairs: u32, share: f64, position: DrawPosition) -> TrainingSet {
        let mut set = TrainingSet {
            graph: PairGraph::default(),
            epoch: Epoch::new(7, position.all),
            recent: Recent::new(7, (share, 100_000), position.recent.unwrap_or_default()),
            feed: Feed::default(),
        };
        set.apply(arrived(1..=pairs));
        set
    }

    fn arrived(pairs: std::ops::RangeInclusive<u32>) -> Changes {
        let entry = |pair| PairEntry::new([2 * pair, 2 * pair + 1].map(ImageKey), None);
        Changes {
            added: pairs.map(|pair| (PairKey(pair), entry(pair))).collect(),
            ..Changes::default()
        }
    }

    /// How often each pair came up in `steps` batches, each of which holds no pair twice.
    fn times(set: &mut TrainingSet, steps: u64) -> Vec<u32> {
        let mut times = vec![0; OLD as usize + 501];
        for step in 0..steps {
            let pairs = set.draw(BATCH, step).pairs;
            let different: HashSet<PairKey> = pairs.iter().copied().collect();
            assert_eq!((pairs.len(), different.len()), (BATCH, BATCH));
            pairs.iter().for_each(|pair| times[pair.0 as usize] += 1);
        }
        times
    }

    #[test]
    fn recent_pairs_have_their_share_of_the_draws_and_the_sampler_hears_of_it() {
        let mut set = set(OLD + 100, 0.25, position());
        let times = times(&mut set, 4000);
        let recent: u32 = times[OLD as usize + 1..].iter().sum();
        // 8,000 of the 32,000 draws, less what is missing from the rest while it is in the batch; the standard deviation is 77.
        assert!((7700..8100).contains(&recent), "{recent}");
        // In three epochs of the one kind and 80 of the other, more or less.
        let (old, new) = times.split_at(OLD as usize + 1);
        assert!(old[1..].iter().all(|times| (11..=13).contains(times)));
        assert!(new[..100].iter().all(|times| (76..=81).contains(times)));
        let recency = set.draw(BATCH, 4000).recency;
        let ratio = 3_f32.recip() * OLD as f32 / 100.0;
        assert!((recency.log_odds - ratio.ln()).abs() < 1e-5, "{recency:?}");
    }

    #[test]
    fn without_a_share_or_without_recent_pairs_all_are_drawn_alike() {
        for (pairs, share) in [(OLD + 100, 0.0), (OLD, 0.25)] {
            let mut set = set(pairs, share, position());
            let times = times(&mut set, u64::from(pairs) / BATCH as u64);
            assert!(times.iter().all(|times| *times <= 1));
            assert_eq!(set.draw(BATCH, 0).recency, Recency::NONE);
        }
    }

    #[test]
    fn a_run_that_goes_on_from_a_position_draws_the_same_with_and_without_a_pause() {
        let mut straight = set(OLD + 100, 0.25, position());
        for step in 0..300 {
            let mut resumed = set(OLD + 100, 0.25, straight.position());
            assert_eq!(resumed.draw(BATCH, step), straight.draw(BATCH, step));
            assert_eq!(resumed.position(), straight.position());
        }
        let place = straight.position();
        let first: Vec<Drawn> = (300..310).map(|step| straight.draw(BATCH, step)).collect();
        straight.rewind(place);
        let again: Vec<Drawn> = (300..310).map(|step| straight.draw(BATCH, step)).collect();
        assert_eq!(first, again);
    }

    #[test]
    fn without_a_known_position_what_is_there_is_not_recent_and_what_comes_is() {
        let mut set = set(OLD, 0.25, position());
        set.rewind(DrawPosition {
            recent: None,
            ..position()
        });
        assert_eq!(set.recent(), 0);
        set.apply(arrived(OLD + 1..=OLD + 3));
        assert_eq!(set.recent(), 3);
    }

    #[test]
    fn pairs_that_arrive_are_recent_and_those_that_are_erased_are_gone() {
        let mut set = set(OLD, 0.25, position());
        assert_eq!(set.recent(), 0);
        set.apply(arrived(OLD + 1..=OLD + 100));
        assert_eq!(set.recent(), 100);
        set.apply(Changes {
            erased: (OLD + 1..=OLD + 60).map(PairKey).collect(),
            ..Changes::default()
        });
        assert_eq!((set.recent(), set.len()), (40, OLD as usize + 40));
        let times = times(&mut set, 500);
        assert!(
            times[OLD as usize + 1..=OLD as usize + 60]
                .iter()
                .all(|times| *times == 0)
        );
        assert!(
            times[OLD as usize + 61..=OLD as usize + 100]
                .iter()
                .all(|times| *times > 0)
        );
    }
}

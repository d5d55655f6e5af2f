//! The pairs that are trained on: which there are, how they are related, and the order in which they are drawn.

use std::collections::HashSet;

use super::{
    context::Context,
    epoch::{Epoch, Position},
    feed::{Changes, Feed},
};
use crate::db::DbError;
use kith_mcmc::{ImageKey, PairGraph, PairKey};

/// The trained pairs, kept in step with the database.
pub(super) struct TrainingSet {
    pub(super) graph: PairGraph,
    pub(super) epoch: Epoch,
    feed: Feed,
}

/// Pairs that left the training set, and their images.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) pairs: HashSet<PairKey>,
    pub(super) images: Vec<ImageKey>,
}

impl TrainingSet {
    /// Reads all trained pairs.
    pub(super) fn read(context: &Context, seed: u64, position: Position) -> Result<Self, DbError> {
        let mut set = Self {
            graph: if context.config.encoder.towers > 1 {
                PairGraph::directed()
            } else {
                PairGraph::default()
            },
            epoch: Epoch::new(seed, position),
            feed: Feed::default(),
        };
        let all = set.feed.fill(context)?;
        set.follow(context, all);
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

    /// The next pairs to train on, at most `batch`. Pairs lighter than the mean are left out of some epochs.
    pub(super) fn draw(&mut self, batch: usize) -> Vec<PairKey> {
        let (graph, share) = (&self.graph, self.graph.draw_share());
        let share_of = |pair| graph.get(pair).map_or(1.0, |entry| share.of(entry.weight));
        self.epoch.draw(batch, share_of)
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
        }
        let mut removed = Removed {
            pairs: changes.erased.into_iter().collect(),
            images: Vec::new(),
        };
        for pair in &removed.pairs {
            self.epoch.remove(*pair);
            if let Some(entry) = self.graph.remove(*pair) {
                removed.images.extend(entry.images);
            }
        }
        removed
    }
}

//! Which pairs are drawn more often than others because they are new.

use crate::{PairKey, SlotKey};

/// How much more often recent pairs are drawn than others of the same weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recency {
    /// Pairs with a larger key are recent.
    pub after: PairKey,
    /// ln of the ratio of their odds to be drawn to those of a pair that is not recent.
    pub log_odds: f32,
}

impl Recency {
    /// All pairs are drawn alike.
    pub const NONE: Self = Self {
        after: PairKey(u32::MAX),
        log_odds: 0.0,
    };

    /// What it adds to [`PairGraph::log_odds`](crate::PairGraph::log_odds) of the slot.
    pub fn of(self, slot: SlotKey) -> f32 {
        if slot.pair() > self.after {
            self.log_odds
        } else {
            0.0
        }
    }
}

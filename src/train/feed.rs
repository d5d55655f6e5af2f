//! Keeps the trained pairs in step with the database: new ones by key, erased ones by sequence, in pages.
//! Must never know: what is done with the pairs.

use std::time::{Duration, Instant};

use super::context::Context;
use crate::{
    db::{DbError, Erasure, PairKeys, Split},
    mcmc::PairEntry,
    types::PairKey,
};

/// Shortest time between two looks: a step may be much shorter.
const PERIOD: Duration = Duration::from_millis(200);
/// Rows read in one look; the rest comes at the next step boundary.
const PAGE: u32 = 4096;

/// How far the database was read.
#[derive(Debug, Default)]
pub(super) struct Feed {
    last_pair: Option<PairKey>,
    last_erasure: u64,
    looked: Option<Instant>,
}

/// What happened since the last look. A pair may be in both lists: it came and went.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New pairs of the train split.
    pub(super) added: Vec<(PairKey, PairEntry)>,
    /// Pairs that are gone, trained on or not.
    pub(super) erased: Vec<PairKey>,
}

impl Feed {
    /// Everything there is. Erasures are read before pairs: one that happens in between shows up at the next look.
    pub(super) fn fill(&mut self, context: &Context) -> Result<Changes, DbError> {
        let mut all = Changes::default();
        while self.erasures(context, &mut all)? {}
        while self.pairs(context, &mut all)? {}
        Ok(all)
    }

    /// What is new, if it is time for a look.
    pub(super) fn poll(&mut self, context: &Context) -> Result<Option<Changes>, DbError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < PERIOD) {
            return Ok(None);
        }
        let mut new = Changes::default();
        let more_pairs = self.pairs(context, &mut new)?;
        let more_erasures = self.erasures(context, &mut new)?;
        // A full page: go on at the next boundary.
        self.looked = (!more_pairs && !more_erasures).then(Instant::now);
        Ok(Some(new))
    }

    /// One page of pairs; whether there may be more.
    fn pairs(&mut self, context: &Context, into: &mut Changes) -> Result<bool, DbError> {
        let after = self.last_pair.unwrap_or(PairKey(0));
        let page = context.wait(context.db.pair_keys_after(after, PAGE))?;
        self.last_pair = page.last().map(|row| row.pair).or(self.last_pair);
        into.added.extend(page.iter().filter_map(trained));
        Ok(page.len() as u32 == PAGE)
    }

    /// One page of erasures; whether there may be more.
    fn erasures(&mut self, context: &Context, into: &mut Changes) -> Result<bool, DbError> {
        let page: Vec<Erasure> =
            context.wait(context.db.erasures_after(self.last_erasure, PAGE))?;
        self.last_erasure = page.last().map_or(self.last_erasure, |row| row.sequence);
        into.erased.extend(page.iter().map(|erasure| erasure.pair));
        Ok(page.len() as u32 == PAGE)
    }
}

/// Held-out pairs never enter, nor pairs that would leak into them.
fn trained(row: &PairKeys) -> Option<(PairKey, PairEntry)> {
    let entry = PairEntry {
        images: row.images,
        group: row.group,
    };
    (row.split == Split::Train).then_some((row.pair, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ImageKey;

    #[test]
    fn only_the_train_split_is_trained_on() {
        let row = |split| PairKeys {
            pair: PairKey(1),
            images: [ImageKey(1), ImageKey(2)],
            group: None,
            split,
        };
        assert!(trained(&row(Split::Train)).is_some());
        assert!(trained(&row(Split::Holdout)).is_none());
        assert!(trained(&row(Split::Unused)).is_none());
    }
}

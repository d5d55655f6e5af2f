//! Reads new pairs (by key) and erased ones (by sequence) from the database, page by page.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::context::Context;
use crate::db::{DbError, Erasure, PairKeys, Split};
use kith_mcmc::{PairEntry, PairKey};

/// Shortest time between two polls: a step may be much shorter.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Rows read in one poll; the rest follows at the next step boundary.
const PAGE: u32 = 4096;

/// Follows the database.
#[derive(Debug, Default)]
pub(super) struct Feed {
    position: Position,
    last_poll: Option<Instant>,
}

/// How far the database was read.
#[derive(Clone, Copy, Debug)]
struct Position {
    last_pair: PairKey,
    last_erasure: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            last_pair: PairKey(0),
            last_erasure: 0,
        }
    }
}

/// Changes since the last poll. A pair that came and went is in both lists.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New pairs of the train split.
    pub(super) added: Vec<(PairKey, PairEntry)>,
    /// When those of them that came since the start of the process were posted.
    pub(super) posted: Vec<(PairKey, Timestamp)>,
    /// Pairs that are gone, trained on or not.
    pub(super) erased: Vec<PairKey>,
}

impl Feed {
    /// All pairs. The position in the log of erasures is set to its end before the pairs are read: an erasure in between shows up at the next
    /// poll, and pairs erased before it are not among those read.
    pub(super) fn fill(&mut self, context: &Context) -> Result<Changes, DbError> {
        self.position.last_erasure = context.wait(context.db.last_erasure())?;
        let mut all = Changes::default();
        while self.position.pairs(context, &mut all)? {}
        Ok(all)
    }

    /// What is new, if it is time for a poll. A failed poll changes nothing: the next one finds the same.
    pub(super) fn poll(&mut self, context: &Context) -> Result<Option<Changes>, DbError> {
        if self
            .last_poll
            .is_some_and(|last| last.elapsed() < POLL_INTERVAL)
        {
            return Ok(None);
        }
        let (mut new, mut ahead) = (Changes::default(), self.position);
        let more_pairs = ahead.pairs(context, &mut new)?;
        let more_erasures = ahead.erasures(context, &mut new)?;
        self.position = ahead;
        // A full page: go on at the next boundary.
        self.last_poll = (!more_pairs && !more_erasures).then(Instant::now);
        Ok(Some(new))
    }

    /// All that is new, however recent the last poll was: a snapshot must not miss any of it.
    pub(super) fn catch_up(&mut self, context: &Context) -> Result<Changes, DbError> {
        let mut new = Changes::default();
        let mut ahead = self.position;
        while ahead.pairs(context, &mut new)? {}
        while ahead.erasures(context, &mut new)? {}
        self.position = ahead;
        Ok(new)
    }

    /// Lets the database forget the erasures that were read.
    pub(super) fn prune(&self, context: &Context) -> Result<(), DbError> {
        context.wait(context.db.prune_erasures(self.position.last_erasure))?;
        Ok(())
    }
}

impl Position {
    /// One page of pairs; whether there may be more.
    fn pairs(&mut self, context: &Context, into: &mut Changes) -> Result<bool, DbError> {
        let page = context.wait(context.db.pair_keys_after(self.last_pair, PAGE))?;
        self.last_pair = page.last().map_or(self.last_pair, |row| row.pair);
        into.added.extend(page.iter().filter_map(trained));
        let since = context.pair_effect.since();
        let posted = page.iter().filter_map(|row| posted(row, since));
        into.posted.extend(posted);
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

/// The entry of a pair of the train split; `None` for held-out pairs and for those that would leak into them.
fn trained(row: &PairKeys) -> Option<(PairKey, PairEntry)> {
    let entry = PairEntry {
        images: row.images,
        group: row.group,
        weight: row.weight,
    };
    (row.split == Split::Train).then_some((row.pair, entry))
}

/// When a pair was posted that is trained on and came at `since` or later: its effect is followed. The others would take the room of those that are
/// learned from.
fn posted(row: &PairKeys, since: Timestamp) -> Option<(PairKey, Timestamp)> {
    let followed = row.split == Split::Train && row.created_at >= since;
    followed.then_some((row.pair, row.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::{ImageKey, PairWeight};

    fn row(split: Split) -> PairKeys {
        PairKeys {
            pair: PairKey(1),
            images: [ImageKey(1), ImageKey(2)],
            group: None,
            weight: PairWeight::ONE,
            split,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_effect_of_new_trained_pairs_is_followed_and_of_no_others() {
        let posted = |split, since| posted(&row(split), Timestamp::from_second(since).unwrap());
        let found = Some((PairKey(1), Timestamp::UNIX_EPOCH));
        assert_eq!(posted(Split::Train, 0), found);
        assert_eq!(posted(Split::Train, 1), None);
        assert_eq!(posted(Split::Holdout, 0), None);
        assert_eq!(posted(Split::Unused, 0), None);
    }

    #[test]
    fn only_the_train_split_is_trained_on() {
        assert!(trained(&row(Split::Train)).is_some());
        assert!(trained(&row(Split::Holdout)).is_none());
        assert!(trained(&row(Split::Unused)).is_none());
    }
}

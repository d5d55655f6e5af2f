//! Samples of the stored pairs: fixed choices by hash, so that one is like the next.

use std::collections::BinaryHeap;

use super::CheckpointError;
use crate::db::{Db, PairKeys, Split};
use kith_mcmc::PairKey;
use kith_seed::mix;

/// Most times that a recent pair counts: few are a poor estimate of what differs within such pairs.
const MAX_TIMES: usize = 4;
/// Rows read from the database at once.
const PAGE: u32 = 4096;

/// Which trained pairs count as recent, and the share of a sample that is theirs if they are fewer.
#[derive(Clone, Copy, Debug)]
pub struct RecentShare {
    /// Pairs with a larger key are recent.
    pub after: PairKey,
    /// Between 0 and 1; 0: they are chosen like all others.
    pub share: f64,
}

/// Trained pairs, each once, in an order of which each beginning is such a sample.
#[derive(Clone, Debug, Default)]
pub struct PairSample {
    /// The pairs.
    pub pairs: Vec<PairKeys>,
    /// How many times each recent one should count, so that they come near their share though they are few.
    pub recent_times: usize,
}

/// At most `max_pairs` pairs of `split`, those with the smallest hash, in order of arrival. A pair of one image with itself is left out unless it is trained on.
pub(super) async fn choose(
    db: &Db,
    split: Split,
    max_pairs: usize,
) -> Result<Vec<PairKeys>, CheckpointError> {
    let mut sample = Sample::new(max_pairs);
    each_pair(db, split, |pair| sample.offer(pair)).await?;
    let mut pairs = sample.pairs(max_pairs);
    pairs.sort_unstable_by_key(|pair| pair.pair);
    Ok(pairs)
}

/// At most `max_pairs` trained pairs, of which the recent ones have their share.
pub(super) async fn choose_mixed(
    db: &Db,
    max_pairs: usize,
    recent: RecentShare,
) -> Result<PairSample, CheckpointError> {
    let mut sample = MixedSample::new(max_pairs, recent);
    each_pair(db, Split::Train, |pair| sample.offer(pair)).await?;
    Ok(sample.pairs())
}

async fn each_pair(
    db: &Db,
    split: Split,
    mut take: impl FnMut(PairKeys),
) -> Result<(), CheckpointError> {
    let mut after = PairKey(0);
    loop {
        let page = db.pair_keys_after(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.pair;
        let usable = page.into_iter().filter(|pair| usable(pair, split));
        usable.for_each(&mut take);
    }
}

fn usable(pair: &PairKeys, split: Split) -> bool {
    pair.split == split && (split == Split::Train || pair.images[0] != pair.images[1])
}

/// The pairs with the smallest hash of those that were offered.
struct Sample {
    max_pairs: usize,
    seen: usize,
    smallest: BinaryHeap<Hashed>,
}

impl Sample {
    fn new(max_pairs: usize) -> Self {
        Self {
            max_pairs,
            seen: 0,
            smallest: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, pair: PairKeys) {
        self.seen += 1;
        self.smallest.push(Hashed {
            hash: mix(&[u64::from(pair.pair.0)]),
            pair,
        });
        if self.smallest.len() > self.max_pairs {
            self.smallest.pop();
        }
    }

    /// At most so many pairs, by their hash.
    fn pairs(self, at_most: usize) -> Vec<PairKeys> {
        let sorted = self.smallest.into_sorted_vec().into_iter();
        sorted.map(|hashed| hashed.pair).take(at_most).collect()
    }
}

/// Samples of the recent pairs and of the others.
struct MixedSample {
    max_pairs: usize,
    recent: RecentShare,
    recents: Sample,
    others: Sample,
}

impl MixedSample {
    fn new(max_pairs: usize, recent: RecentShare) -> Self {
        Self {
            max_pairs,
            recent,
            recents: Sample::new(max_pairs),
            others: Sample::new(max_pairs),
        }
    }

    fn offer(&mut self, pair: PairKeys) {
        if pair.pair > self.recent.after {
            self.recents.offer(pair);
        } else {
            self.others.offer(pair);
        }
    }

    fn pairs(self) -> PairSample {
        let all = self.recents.seen + self.others.seen;
        let chosen = self.max_pairs.min(all);
        let share = self
            .recent
            .share
            .max(self.recents.seen as f64 / all.max(1) as f64);
        let wanted = (chosen as f64 * share).round() as usize;
        let new = wanted.min(self.recents.seen);
        let recent_times = (wanted / new.max(1)).clamp(1, MAX_TIMES);
        let others = self.others.pairs(chosen - new);
        // Where the others are too few, further recent ones take their places.
        let recents = self.recents.pairs(chosen - others.len());
        PairSample {
            pairs: interleaved(recents, others),
            recent_times,
        }
    }
}

/// A pair in the order of hashes.
struct Hashed {
    hash: u64,
    pair: PairKeys,
}

impl Hashed {
    fn order(&self) -> (u64, PairKey) {
        (self.hash, self.pair.pair)
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Hashed {}

impl PartialOrd for Hashed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hashed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// Both lists in one, in which each is spread evenly.
fn interleaved(first: Vec<PairKeys>, second: Vec<PairKeys>) -> Vec<PairKeys> {
    let spread = |pairs: Vec<PairKeys>| {
        let count = pairs.len() as f64;
        let places = pairs.into_iter().enumerate();
        places.map(move |(place, pair)| ((place as f64 + 0.5) / count, pair))
    };
    let mut all: Vec<(f64, PairKeys)> = spread(first).chain(spread(second)).collect();
    all.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    all.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::{ImageKey, PairWeight};

    fn pair(key: u32) -> PairKeys {
        PairKeys {
            pair: PairKey(key),
            images: [2 * key, 2 * key + 1].map(ImageKey),
            group: None,
            weight: PairWeight::ONE,
            split: Split::Train,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// The keys and the times of a sample of at most `max_pairs` of a thousand pairs, of which those after `after` are recent.
    fn chosen(max_pairs: usize, after: u32, share: f64) -> (Vec<u32>, usize) {
        let recent = RecentShare {
            after: PairKey(after),
            share,
        };
        let mut sample = MixedSample::new(max_pairs, recent);
        (1..=1000).for_each(|key| sample.offer(pair(key)));
        let sample = sample.pairs();
        let keys = sample.pairs.iter().map(|pair| pair.pair.0).collect();
        (keys, sample.recent_times)
    }

    fn recent_of(keys: &[u32], after: u32) -> usize {
        keys.iter().filter(|key| **key > after).count()
    }

    #[test]
    fn few_recent_pairs_get_their_share_in_each_beginning_of_the_sample() {
        let (keys, times) = chosen(200, 900, 0.25);
        assert_eq!((keys.len(), recent_of(&keys, 900), times), (200, 50, 1));
        for part in keys.chunks(20) {
            assert_eq!(recent_of(part, 900), 5, "{keys:?}");
        }
    }

    #[test]
    fn fewer_than_their_share_are_all_there_and_count_more_and_many_are_chosen_like_the_others() {
        for (max_pairs, after, share, expected) in [
            (200, 980, 0.25, (20, 2)),
            (200, 995, 0.25, (5, MAX_TIMES)),
            (200, 500, 0.25, (100, 1)),
            (200, 900, 0.0, (20, 1)),
            (5000, 900, 0.25, (100, 2)),
        ] {
            let (keys, times) = chosen(max_pairs, after, share);
            assert_eq!((recent_of(&keys, after), times), expected, "{after}");
        }
    }

    #[test]
    fn what_fits_is_all_there_once_whatever_is_recent() {
        for after in [0, 10, 990, 1000] {
            let (mut keys, _) = chosen(5000, after, 0.25);
            keys.sort_unstable();
            assert!(keys.into_iter().eq(1..=1000), "after {after}");
        }
    }

    #[test]
    fn nothing_is_chosen_from_nothing() {
        let recent = RecentShare {
            after: PairKey(0),
            share: 0.25,
        };
        let sample = MixedSample::new(10, recent).pairs();
        assert!(sample.pairs.is_empty());
        assert_eq!(sample.recent_times, 1);
    }
}

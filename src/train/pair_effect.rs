//! How soon a posted pair has an effect: the seconds until a step learned from it, and until a checkpoint with such a step serves.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::telemetry::{Histogram, Metrics, series};
use kith_mcmc::PairKey;

/// Most pairs that are followed until a step, and most that are followed from there until they serve. While there are as many, further ones are
/// not counted.
const MAX_FOLLOWED: usize = 10_000;

/// Follows posted pairs; cheap to clone.
#[derive(Clone, Debug)]
pub struct PairEffect {
    since: Timestamp,
    followed: Arc<Mutex<Followed>>,
    learned: Histogram,
    served: Histogram,
}

#[derive(Debug, Default)]
struct Followed {
    /// When they were posted.
    waiting: HashMap<PairKey, Timestamp>,
    /// The newest pair that arrived: a run that begins anew reads all of them again.
    newest: Option<PairKey>,
    /// The step after which each was learned, ascending, and when it was posted.
    learned: VecDeque<(u64, Timestamp)>,
}

impl PairEffect {
    /// Follows nothing yet, and counts in `metrics`.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            since: Timestamp::now(),
            followed: Arc::default(),
            learned: metrics.histogram(&series::PAIR_LEARNED, Vec::new()),
            served: metrics.histogram(&series::PAIR_SERVED, Vec::new()),
        }
    }

    /// When it began: pairs that were posted before are not followed.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Follows pairs that arrived, in the order of their keys, each with the time at which it was posted. Those that arrived before are left out.
    pub(super) fn posted(&self, pairs: &[(PairKey, Timestamp)]) {
        let Followed {
            waiting, newest, ..
        } = &mut *self.followed();
        let before = *newest;
        let new = pairs.iter().filter(|(pair, _)| Some(*pair) > before);
        let room = MAX_FOLLOWED.saturating_sub(waiting.len());
        waiting.extend(new.copied().take(room));
        *newest = before.max(pairs.last().map(|(pair, _)| *pair));
    }

    /// Leaves off following pairs that are gone.
    pub(super) fn erased(&self, pairs: &[PairKey]) {
        let waiting = &mut self.followed().waiting;
        pairs.iter().for_each(|pair| _ = waiting.remove(pair));
    }

    /// A step learned from `pairs`; `step`: the number of steps with it.
    pub(super) fn learned(&self, pairs: &[PairKey], step: u64, now: Timestamp) {
        let Followed {
            waiting, learned, ..
        } = &mut *self.followed();
        for posted in pairs.iter().filter_map(|pair| waiting.remove(pair)) {
            self.learned.record(seconds(posted, now));
            if learned.len() < MAX_FOLLOWED {
                learned.push_back((step, posted));
            }
        }
    }

    /// Training goes on from `step`: what was learned after it is lost, and not followed any more.
    pub(super) fn resumed_at(&self, step: u64) {
        self.followed()
            .learned
            .retain(|(learned, _)| *learned <= step);
    }

    /// A checkpoint that was taken at `step` serves.
    pub fn served(&self, step: u64, now: Timestamp) {
        let learned = &mut self.followed().learned;
        let included = learned.partition_point(|(learned, _)| *learned <= step);
        for (_, posted) in learned.drain(..included) {
            self.served.record(seconds(posted, now));
        }
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Each change leaves whole lists.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that was set back makes no negative time.
fn seconds(posted: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(posted).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Count and sum of a histogram in Prometheus' text.
    fn total(metrics: &Metrics, name: &str) -> (f64, f64) {
        let text = metrics.render();
        let value = |suffix: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}_{suffix} ")));
            line.map_or(0.0, |value| value.parse().unwrap())
        };
        (value("count"), value("sum"))
    }

    fn learned(metrics: &Metrics) -> (f64, f64) {
        total(metrics, "kith_pair_learned_seconds")
    }

    fn served(metrics: &Metrics) -> (f64, f64) {
        total(metrics, "kith_pair_served_seconds")
    }

    #[test]
    fn a_pair_counts_once_when_it_is_learned_and_once_when_that_serves() {
        let metrics = Metrics::new();
        let effect = PairEffect::new(&metrics);
        effect.posted(&[(PairKey(1), at(100)), (PairKey(2), at(101))]);
        effect.learned(&[PairKey(1), PairKey(9)], 7, at(103));
        // A run that begins anew reads it again.
        effect.posted(&[(PairKey(1), at(100))]);
        effect.learned(&[PairKey(1)], 8, at(150));
        assert_eq!(learned(&metrics), (1.0, 3.0));
        effect.served(6, at(160));
        assert_eq!(served(&metrics), (0.0, 0.0));
        effect.learned(&[PairKey(2)], 9, at(161));
        effect.served(8, at(170));
        effect.served(8, at(180));
        assert_eq!(served(&metrics), (1.0, 70.0));
        effect.served(20, at(181));
        assert_eq!(served(&metrics), (2.0, 150.0));
    }

    #[test]
    fn what_is_erased_or_taken_back_by_a_recovery_is_not_counted() {
        let metrics = Metrics::new();
        let effect = PairEffect::new(&metrics);
        effect.posted(&[(PairKey(1), at(0)), (PairKey(2), at(0))]);
        effect.erased(&[PairKey(1)]);
        effect.learned(&[PairKey(1), PairKey(2)], 5, at(1));
        assert_eq!(learned(&metrics).0, 1.0);
        effect.resumed_at(4);
        effect.served(9, at(2));
        assert_eq!(served(&metrics).0, 0.0);
    }

    #[test]
    fn a_flood_of_pairs_is_followed_in_part() {
        let effect = PairEffect::new(&Metrics::new());
        for step in 1..=3 {
            let keys = step * 25_000..(step + 1) * 25_000;
            let pairs: Vec<_> = keys.map(|pair| (PairKey(pair), at(0))).collect();
            effect.posted(&pairs);
            let keys: Vec<PairKey> = pairs.iter().map(|(pair, _)| *pair).collect();
            assert_eq!(effect.followed().waiting.len(), MAX_FOLLOWED);
            effect.learned(&keys, step.into(), at(1));
            assert_eq!(effect.followed().learned.len(), MAX_FOLLOWED);
        }
    }
}

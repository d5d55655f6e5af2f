//! Recent pairs: they are drawn more often than the others for a while, so that what they teach shows soon.
//!
//! A batch is drawn as if each pair were in it or not by odds of its own, given the batch's size: the sampler's corrections are exact for that.
//! So the number of recent pairs in a batch follows Fisher's noncentral hypergeometric distribution, and they come from epochs of their own.

use std::collections::BTreeMap;

use super::epoch::{Epoch, Position};
use crate::checkpoint::RecentDraws;
use kith_mcmc::{Draws, PairEntry, PairGraph, PairKey, PairWeight, Recency};
use kith_seed::{mix, unit};

/// Batches between two draws of a recent pair, at least and on average: a few pairs are not to fill every batch.
const MIN_GAP: f64 = 32.0;

/// Which pairs are recent, and the order in which they are drawn.
pub(super) struct Recent {
    seed: u64,
    /// Share of the batches that is for them, if they are fewer than that.
    share: f64,
    /// For how many steps a pair is recent, at most; 2 or more.
    steps: u64,
    draws: RecentDraws,
    epoch: Epoch,
    /// Number of recent pairs of each weight.
    weights: BTreeMap<PairWeight, u64>,
    /// The largest key that arrived.
    newest: PairKey,
}

impl Recent {
    /// Without pairs, where `draws` says. `seed` is the run's.
    pub(super) fn new(seed: u64, (share, steps): (f64, u64), draws: RecentDraws) -> Self {
        let own_seed = mix(&[seed, u64::from_be_bytes(*b"  recent")]);
        Self {
            seed: own_seed,
            share,
            steps,
            draws,
            epoch: Epoch::new(own_seed, position(&draws)),
            weights: BTreeMap::new(),
            newest: PairKey(0),
        }
    }

    /// Where the draws stand.
    pub(super) fn draws(&self) -> RecentDraws {
        self.draws
    }

    pub(super) fn is_recent(&self, pair: PairKey) -> bool {
        pair.0 > self.draws.after
    }

    /// Number of recent pairs.
    pub(super) fn len(&self) -> usize {
        self.epoch.len()
    }

    /// A pair that arrived.
    pub(super) fn insert(&mut self, pair: PairKey, entry: &PairEntry) {
        self.newest = self.newest.max(pair);
        if self.is_recent(pair) {
            self.epoch.insert(pair);
            *self.weights.entry(entry.weight).or_default() += 1;
        }
    }

    /// A pair that is gone.
    pub(super) fn remove(&mut self, pair: PairKey, entry: &PairEntry) {
        if self.is_recent(pair)
            && let Some(pairs) = self.weights.get_mut(&entry.weight)
        {
            self.epoch.remove(pair);
            *pairs -= 1;
            if *pairs == 0 {
                self.weights.remove(&entry.weight);
            }
        }
    }

    /// Goes back to an earlier place, as if nothing had been drawn since.
    pub(super) fn rewind(&mut self, draws: RecentDraws, graph: &PairGraph) {
        self.draws = draws;
        self.epoch = Epoch::new(self.seed, position(&draws));
        self.weights.clear();
        for pair in graph.newer_than(PairKey(draws.after)) {
            if let Some(entry) = graph.get(pair) {
                self.insert(pair, &entry);
            }
        }
    }

    /// Makes none of the pairs that are there recent.
    pub(super) fn settle(&mut self, graph: &PairGraph) {
        let draws = RecentDraws {
            after: self.newest.0,
            next: self.newest.0,
            ..RecentDraws::default()
        };
        self.rewind(draws, graph);
    }

    /// Lets the older half of the recent pairs be so no more, if it is time at `step`: a pair is recent for `steps` of them at most, and for half as
    /// many at least.
    pub(super) fn age(&mut self, step: u64, graph: &PairGraph) {
        if step < self.draws.moved + self.steps / 2 {
            return;
        }
        let draws = RecentDraws {
            after: self.draws.next,
            next: self.newest.0.max(self.draws.next),
            moved: step,
            ..self.draws
        };
        if draws.after == self.draws.after {
            self.draws = draws;
        } else {
            self.rewind(draws, graph);
        }
    }

    /// The ratio of their odds to be drawn to those of the other pairs, in batches of `batch` from `all` pairs. `None`: they are drawn like the others,
    /// since they are many enough, or none.
    pub(super) fn odds(&self, batch: usize, all: &Draws) -> Option<Odds> {
        let of_weight =
            |(weight, pairs): (&PairWeight, &u64)| all.share.of(*weight) * *pairs as f64;
        let recent: f64 = self.weights.iter().map(of_weight).sum();
        let (others, batch) = (all.pairs_per_epoch - recent, batch as f64);
        let share = self.share.min(recent / (MIN_GAP * batch));
        if share <= recent / all.pairs_per_epoch || others < batch {
            return None;
        }
        Some(Odds {
            ratio: share / (1.0 - share) * others / recent,
            recent,
            others,
        })
    }

    /// Their number in the batch of `step`.
    pub(super) fn number(&self, odds: &Odds, batch: usize, step: u64) -> usize {
        odds.number(batch, unit(mix(&[self.seed, step])))
    }

    /// The next `number` of them.
    pub(super) fn draw(&mut self, number: usize, share: impl Fn(PairKey) -> f64) -> Vec<PairKey> {
        let drawn = self.epoch.draw(number, share);
        let Position { epoch, cursor } = self.epoch.position();
        (self.draws.epoch, self.draws.cursor) = (epoch, cursor);
        drawn
    }

    /// What the sampler must know of `odds`.
    pub(super) fn recency(&self, odds: &Odds) -> Recency {
        Recency {
            after: PairKey(self.draws.after),
            log_odds: odds.ratio.ln() as f32,
        }
    }
}

fn position(draws: &RecentDraws) -> Position {
    Position {
        epoch: draws.epoch,
        cursor: draws.cursor,
    }
}

/// How much more often recent pairs are drawn than others.
#[derive(Debug)]
pub(super) struct Odds {
    /// Their odds in units of those of other pairs of the same weight.
    ratio: f64,
    /// Mean number of recent pairs in an epoch, and of the others.
    recent: f64,
    others: f64,
}

impl Odds {
    /// The number of recent pairs in a batch, by the quantile `at` in [0, 1): the weight of k is that of the batches with k of them.
    fn number(&self, batch: usize, at: f64) -> usize {
        let (mut log_weight, mut log_weights) = (0.0_f64, vec![0.0]);
        for drawn in 0..batch {
            let (k, left) = (drawn as f64, (batch - drawn) as f64);
            let recent_left = (self.recent - k).max(0.0);
            let ratio = self.ratio * recent_left / (k + 1.0) * left / (self.others - left + 1.0);
            log_weight += ratio.ln();
            log_weights.push(log_weight);
        }
        // The weights themselves overflow in large batches.
        let largest = log_weights.iter().copied().fold(0.0, f64::max);
        let weights: Vec<f64> = log_weights
            .iter()
            .map(|log| (log - largest).exp())
            .collect();
        let mut rest = at * weights.iter().sum::<f64>();
        let reached = |weight: &f64| {
            rest -= weight;
            rest < 0.0
        };
        weights.iter().position(reached).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use kith_mcmc::ImageKey;

    const SHARE: f64 = 0.25;
    const STEPS: u64 = 100;
    const EVERY: fn(PairKey) -> f64 = |_| 1.0;

    fn entry(pair: u32, weight: f64) -> PairEntry {
        let images = [2 * pair, 2 * pair + 1].map(ImageKey);
        PairEntry {
            weight: PairWeight::new(weight).expect("it is in range"),
            ..PairEntry::new(images, None)
        }
    }

    /// Pairs 1 to `pairs`, of which those after `after` are recent.
    fn set(pairs: u32, after: u32) -> (PairGraph, Recent) {
        let draws = RecentDraws {
            after,
            next: after,
            ..RecentDraws::default()
        };
        let mut recent = Recent::new(7, (SHARE, STEPS), draws);
        let mut graph = PairGraph::default();
        for pair in 1..=pairs {
            graph.insert(PairKey(pair), entry(pair, 1.0));
            recent.insert(PairKey(pair), &entry(pair, 1.0));
        }
        (graph, recent)
    }

    fn mean_number(odds: &Odds, batch: usize) -> f64 {
        let at = (0..4000).map(|place| (f64::from(place) + 0.5) / 4000.0);
        at.map(|at| odds.number(batch, at) as f64).sum::<f64>() / 4000.0
    }

    #[test]
    fn few_recent_pairs_get_their_share_of_the_batches() {
        // 400 of 4,000, of which a batch of 32 would hold 3.2.
        let (graph, recent) = set(4000, 3600);
        let odds = recent.odds(32, &graph.draws()).expect("they are few");
        let mean = mean_number(&odds, 32);
        // 8 by their odds in an endless set; here those in the batch are missing from the rest.
        assert!((7.9..8.1).contains(&mean), "{mean}");
        let recency = recent.recency(&odds);
        // A third of the others' draws from a ninth of their number.
        assert!((recency.log_odds - 3.0_f32.ln()).abs() < 1e-6);
        assert_eq!(recency.after, PairKey(3600));
    }

    #[test]
    fn none_is_drawn_more_often_than_in_every_32nd_batch() {
        let (graph, recent) = set(8000, 7984);
        let odds = recent.odds(32, &graph.draws()).expect("they are few");
        let mean = mean_number(&odds, 32);
        // Half a pair by their odds in an endless set; of 16 each that is in the batch is missing from the rest.
        assert!((0.48..=0.5).contains(&mean), "16 pairs: {mean}");
    }

    #[test]
    fn many_none_and_those_of_a_small_set_are_drawn_like_the_others() {
        for (pairs, after) in [(4000, 3000), (4000, 0), (4000, 4000), (1000, 900)] {
            let (graph, recent) = set(pairs, after);
            assert!(recent.odds(32, &graph.draws()).is_none(), "{pairs} {after}");
        }
    }

    #[test]
    fn a_light_recent_pair_counts_by_its_weight() {
        let (mut graph, mut recent) = set(4000, 4000);
        for pair in 4001..=4200 {
            graph.insert(PairKey(pair), entry(pair, 0.1));
            recent.insert(PairKey(pair), &entry(pair, 0.1));
        }
        let draws = graph.draws();
        let odds = recent.odds(32, &draws).expect("they are few");
        let expected = 200.0 * draws.share.of(entry(0, 0.1).weight);
        assert!((odds.recent - expected).abs() < 1e-9);
        assert!((mean_number(&odds, 32) - expected / MIN_GAP).abs() < 0.02);
    }

    #[test]
    fn batches_come_up_by_the_product_of_the_odds() {
        // Two recent pairs of seven, in batches of three: each batch with k of them has the weight ratio to the power k.
        let odds = Odds {
            ratio: 3.0,
            recent: 2.0,
            others: 5.0,
        };
        let mut found = [0.0; 4];
        for place in 0..100_000 {
            found[odds.number(3, f64::from(place) / 1e5)] += 1e-5;
        }
        // So many batches there are with none, one and both of them.
        let weights = [10.0, 3.0 * 20.0, 9.0 * 5.0, 0.0];
        let total: f64 = weights.iter().sum();
        for (found, weight) in found.iter().zip(weights) {
            assert!((found - weight / total).abs() < 2e-5, "{found} {weight}");
        }
    }

    #[test]
    fn the_number_is_finite_in_the_largest_batches() {
        let odds = Odds {
            ratio: 1.0,
            recent: 1e6,
            others: 1e6,
        };
        assert_eq!(odds.number(4096, 0.5), 2048);
    }

    #[test]
    fn a_pair_is_recent_for_half_the_steps_at_least_and_all_at_most() {
        for arrival in 0..120 {
            let (mut graph, mut recent) = set(50, 0);
            let mut last = 0;
            for step in 0..400 {
                if step == arrival {
                    graph.insert(PairKey(51), entry(51, 1.0));
                    recent.insert(PairKey(51), &entry(51, 1.0));
                }
                recent.age(step, &graph);
                if step >= arrival && recent.is_recent(PairKey(51)) {
                    last = step + 1 - arrival;
                }
            }
            let range = STEPS / 2..=STEPS;
            assert!(range.contains(&last), "{arrival}: {last}");
            assert_eq!(recent.len(), 0);
        }
    }

    #[test]
    fn a_run_that_stops_anywhere_goes_on_as_if_it_had_not() {
        let (graph, mut straight) = set(300, 100);
        let mut drawn = HashMap::<PairKey, u32>::new();
        for step in 0..300 {
            let mut resumed = Recent::new(7, (SHARE, STEPS), RecentDraws::default());
            resumed.rewind(straight.draws(), &graph);
            for recent in [&mut straight, &mut resumed] {
                recent.age(step, &graph);
            }
            let pairs = straight.draw(4, EVERY);
            assert_eq!(resumed.draw(4, EVERY), pairs);
            assert_eq!(resumed.draws(), straight.draws());
            assert_eq!(resumed.len(), straight.len());
            for pair in pairs {
                *drawn.entry(pair).or_default() += 1;
            }
        }
        // A hundred steps drew each of the 200 twice. Then they were recent no more.
        assert_eq!(drawn.len(), 200);
        assert!(drawn.values().all(|times| *times == 2), "{drawn:?}");
    }

    #[test]
    fn what_is_erased_is_not_drawn() {
        let (mut graph, mut recent) = set(300, 290);
        let gone = graph.remove(PairKey(295)).expect("it is there");
        recent.remove(PairKey(295), &gone);
        assert_eq!(recent.len(), 9);
        let drawn: Vec<PairKey> = (0..9).flat_map(|_| recent.draw(1, EVERY)).collect();
        assert!(!drawn.contains(&PairKey(295)));
        assert_eq!(recent.weights.values().sum::<u64>(), 9);
    }
}

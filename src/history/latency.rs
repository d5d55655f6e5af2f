//! How long requests took between two looks at the series of `/metrics`, by their buckets.

use std::collections::BTreeMap;

/// Requests for embeddings in cumulative buckets, by the bound in nanoseconds; the last bound stands for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets(BTreeMap<u64, u64>);

const LINE: &str = "kith_http_request_duration_seconds_bucket{";
/// The routes that count.
const ROUTES: [&str; 2] = ["route=\"/v1/embeddings\"", "route=\"/v2/embed\""];

impl Buckets {
    /// Those of Prometheus' text.
    pub(super) fn read(text: &str) -> Self {
        let mut buckets = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(LINE)) {
            let Some((labels, count)) = line.rsplit_once("} ") else {
                continue;
            };
            let bound = labels
                .split(',')
                .find_map(|label| label.strip_prefix("le=\""));
            let bound = bound.and_then(|bound| bound.strip_suffix('"'));
            if !ROUTES.iter().any(|route| labels.contains(route)) {
                continue;
            }
            let bound = match bound {
                Some("+Inf") => u64::MAX,
                // As a whole number, since floats have no order.
                Some(bound) => bound
                    .parse()
                    .map_or(u64::MAX, |seconds: f64| (seconds * 1e9) as u64),
                None => continue,
            };
            *buckets.entry(bound).or_default() += count.parse().unwrap_or(0_u64);
        }
        Self(buckets)
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let new = |(bound, count): (&u64, &u64)| {
            let old = before.0.get(bound).copied().unwrap_or(0);
            (*bound, count.saturating_sub(old))
        };
        Self(self.0.iter().map(new).collect())
    }

    /// Requests in all.
    pub(super) fn count(&self) -> u64 {
        self.0.get(&u64::MAX).copied().unwrap_or(0)
    }

    /// The quantile in seconds, evenly spread within its bucket; beyond the last bound that bound. `None` without a request.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let (mut from, mut below) = (0.0, 0);
        for (bound, count) in &self.0 {
            let to = *bound as f64 / 1e9;
            if *bound == u64::MAX {
                break;
            }
            if *count as f64 >= rank && *count > below {
                let within = (rank - below as f64) / (count - below) as f64;
                return Some(from + within.max(0.0) * (to - from));
            }
            (from, below) = (to, *count);
        }
        (self.count() > 0).then_some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counts: [u64; 3]) -> String {
        let line = |(bound, count): (&str, u64)| {
            format!(
                "{LINE}route=\"/v1/embeddings\",method=\"POST\",status=\"200\",le=\"{bound}\"}} {count}\n"
            )
        };
        let other =
            format!("{LINE}route=\"/v1/pairs\",method=\"POST\",status=\"200\",le=\"+Inf\"}} 900\n");
        let lines = ["0.01", "0.1", "+Inf"].into_iter().zip(counts).map(line);
        other + &lines.collect::<String>()
    }

    #[test]
    fn quantiles_are_those_of_the_requests_between_two_looks() {
        let before = Buckets::read(&text([100, 100, 100]));
        let after = Buckets::read(&text([150, 200, 200]));
        let new = after.since(&before);
        assert_eq!(new.count(), 100);
        // The first half took at most 10 ms, the second up to 100 ms.
        assert_eq!(new.quantile(0.5), Some(0.01));
        let off = (new.quantile(0.99).unwrap() - 0.0982).abs();
        assert!(off < 1e-9);
        assert_eq!(before.since(&before).quantile(0.5), None);
    }

    #[test]
    fn what_is_beyond_the_last_bound_counts_as_that_bound() {
        let slow = Buckets::read(&text([0, 0, 5]));
        assert_eq!((slow.count(), slow.quantile(0.5)), (5, Some(0.1)));
    }
}

//! Compares the better EMC² estimator with every other objective, at equal steps and at equal seconds of training.

use super::{Claim, Points, method::Method, number::short};

/// Accuracy of the linear probe.
pub(super) const LINEAR: &str = "linear_probe";
/// Accuracy of the nearest neighbours.
pub(super) const NEIGHBOURS: &str = "nearest_neighbours";
/// Seconds of training so far.
pub(super) const SECONDS: &str = "seconds";

/// The methods that are compared at one batch size.
pub(super) struct Comparison<'a> {
    pub(super) methods: &'a [Method],
    pub(super) batch: usize,
}

impl Comparison<'_> {
    /// The claims that EMC² leads: for each of two measures, at equal steps and at equal seconds.
    pub(super) fn claims(&self, points: &Points) -> Vec<Claim> {
        let shortest = self.shortest_seconds(points);
        let measures = [(LINEAR, "linear probe"), (NEIGHBOURS, "nearest neighbours")];
        let both = |(value, what): (&'static str, &str)| {
            let steps = |series: &str| points.last(series, value).mean;
            let seconds = |series: &str| after(points, (series, value), shortest);
            [
                self.leads(&format!("{what} at equal steps"), steps),
                self.leads(&format!("{what} at equal seconds"), seconds),
            ]
        };
        measures.into_iter().flat_map(both).collect()
    }

    fn leads(&self, what: &str, value: impl Fn(&str) -> f64) -> Claim {
        let best = |emc2: bool| {
            let group = self
                .methods
                .iter()
                .filter(|method| method.is_emc2() == emc2);
            group
                .map(|method| (method.name(), value(&method.series(self.batch))))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap_or(("none", f64::NAN))
        };
        let (ours, theirs) = (best(true), best(false));
        Claim::new(
            format!("b = {}: EMC² leads, {what}", self.batch),
            ours.1 >= theirs.1,
            format!(
                "{} {} against {} {}",
                ours.0,
                short(ours.1),
                theirs.0,
                short(theirs.1)
            ),
        )
    }

    /// Seconds of training of the fastest method.
    fn shortest_seconds(&self, points: &Points) -> f64 {
        let all = self.methods.iter().map(|method| method.series(self.batch));
        all.map(|series| points.last(&series, SECONDS).mean)
            .fold(f64::INFINITY, f64::min)
    }
}

/// The mean of a value after `seconds` of training, interpolated linearly between two measurements.
fn after(points: &Points, (series, value): (&str, &str), seconds: f64) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    for at in points.curve(series, value).keys() {
        let time = points.at(series, SECONDS, *at).mean;
        let found = points.at(series, value, *at).mean;
        if time >= seconds {
            return match before {
                Some((earlier, old)) if time > earlier => {
                    old + (found - old) * (seconds - earlier) / (time - earlier)
                }
                _ => found,
            };
        }
        before = Some((time, found));
    }
    before.map_or(f64::NAN, |(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Point, Run};

    const COMPARISON: Comparison<'_> = Comparison {
        methods: &Method::COMPARED,
        batch: 8,
    };

    /// Every method climbs from 0.1 to its final accuracy in its number of seconds.
    fn points(end: impl Fn(Method) -> (f64, f64)) -> Points {
        let mut points = Points::default();
        for method in COMPARISON.methods {
            let (accuracy, seconds) = end(*method);
            for (at, share) in [(0, 0.0), (1_000, 0.5), (2_000, 1.0)] {
                let accuracy = 0.1 + share * (accuracy - 0.1);
                let named = [
                    (LINEAR, accuracy),
                    (NEIGHBOURS, accuracy),
                    (SECONDS, share * seconds),
                ];
                points.insert(Point {
                    run: Run {
                        seed: 1,
                        series: method.series(8),
                    },
                    at,
                    values: named.map(|(name, value)| (name.to_owned(), value)).into(),
                });
            }
        }
        points
    }

    #[test]
    fn steps_and_seconds_are_judged_apart() {
        let holds = |ours: (f64, f64)| -> Vec<bool> {
            let end = |method: Method| if method.is_emc2() { ours } else { (0.5, 100.0) };
            COMPARISON
                .claims(&points(end))
                .iter()
                .map(|claim| claim.holds)
                .collect()
        };
        assert_eq!(holds((0.6, 100.0)), [true; 4]);
        assert_eq!(holds((0.4, 100.0)), [false; 4]);
        // Better by step, but the steps take three times as long.
        assert_eq!(holds((0.6, 300.0)), [true, false, true, false]);
        let nothing = COMPARISON.claims(&Points::default());
        assert!(nothing.iter().all(|claim| !claim.holds));
    }

    #[test]
    fn a_value_between_two_measurements_lies_on_their_line() {
        let points = points(|_| (0.5, 100.0));
        let at = |seconds| after(&points, ("infonce, b = 8", LINEAR), seconds);
        assert!((at(25.0) - 0.2).abs() < 1e-12);
        assert!((at(1e9) - 0.5).abs() < 1e-12);
    }
}

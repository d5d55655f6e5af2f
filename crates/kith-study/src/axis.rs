//! A linear or logarithmic axis of a plot, with its ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

/// An axis from the smallest to the largest value, with a margin.
///
/// Its logarithmic ticks are 1, 2 and 5 times the powers of ten where the axis is short: plotters' own log axis begins at a power of ten
/// and so has no tick within a decade.
#[derive(Clone)]
pub(super) struct Axis {
    range: Range<f64>,
    log: bool,
    linear: RangedCoordf64,
}

impl Axis {
    /// An axis that contains `values`; on a logarithmic axis they are positive.
    pub(super) fn new(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let scale = |value: f64| if log { value.ln() } else { value };
        let (low, high) = values
            .map(scale)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let margin = if high > low {
            0.04 * (high - low)
        } else {
            0.5 * high.abs().max(1.0)
        };
        let (low, high) = (low - margin, high + margin);
        let back = |value: f64| if log { value.exp() } else { value };
        Self {
            range: back(low)..back(high),
            log,
            linear: (low..high).into(),
        }
    }

    /// The position of a value along the axis: 0 at its start, 1 at its end.
    pub(super) fn fraction(&self, value: f64) -> f64 {
        f64::from(self.map(&value, (0, 1000))) / 1000.0
    }

    /// The powers of ten, and 2 and 5 times them where that makes at most 9 (and `max`) ticks.
    fn log_ticks(&self, max: usize) -> Vec<f64> {
        let (first, last) = (
            self.range.start.log10().floor() as i32,
            self.range.end.log10().ceil() as i32,
        );
        let within = |factors: &[f64]| -> Vec<f64> {
            (first..=last)
                .flat_map(|power| {
                    factors
                        .iter()
                        .map(move |factor| factor * 10_f64.powi(power))
                })
                .filter(|value| self.range.contains(value))
                .collect()
        };
        let fine = within(&[1.0, 2.0, 5.0]);
        if fine.len() <= max.min(9) {
            fine
        } else {
            within(&[1.0])
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let value = if self.log { value.ln() } else { *value };
        self.linear.map(&value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if self.log {
            self.log_ticks(hint.max_num_points())
        } else {
            self.linear.key_points(hint)
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_round_ticks_within_its_range() {
        let wide = Axis::new([3e-4, 20.0].into_iter(), true);
        assert_eq!(wide.log_ticks(20), [1e-3, 1e-2, 0.1, 1.0, 10.0]);
        let narrow = Axis::new([0.1, 1.0].into_iter(), true);
        assert_eq!(narrow.log_ticks(20), [0.1, 0.2, 0.5, 1.0]);
    }

    #[test]
    fn one_value_has_room_on_both_sides() {
        for log in [false, true] {
            let axis = Axis::new([2.0].into_iter(), log);
            assert!(axis.range.start < 2.0 && axis.range.end > 2.0);
            assert!(axis.map(&2.0, (0, 100)).abs_diff(50) <= 1);
        }
    }
}

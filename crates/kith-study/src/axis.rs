//! An axis of a picture, linear or logarithmic, with its ticks. Must never know: what is drawn along it.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

/// From the least to the largest value, with some room.
#[derive(Clone)]
pub(super) struct Axis {
    range: Range<f64>,
    log: bool,
    linear: RangedCoordf64,
}

impl Axis {
    /// Around `values`; those of a logarithmic axis are positive.
    pub(super) fn around(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let scale = |value: f64| if log { value.ln() } else { value };
        let (low, high) = values
            .map(scale)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let room = match high > low {
            true => 0.04 * (high - low),
            false => 0.5 * high.abs().max(1.0),
        };
        let (low, high) = (low - room, high + room);
        let back = |value: f64| if log { value.exp() } else { value };
        Self {
            range: back(low)..back(high),
            log,
            linear: (low..high).into(),
        }
    }

    /// How far along the axis a value lies: 0 at its start, 1 at its end.
    pub(super) fn share(&self, value: f64) -> f64 {
        f64::from(self.map(&value, (0, 1000))) / 1000.0
    }

    /// Powers of ten, with their two- and fivefold where there are few.
    fn decades(&self, most: usize) -> Vec<f64> {
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
        match fine.len() <= most.min(9) {
            true => fine,
            false => within(&[1.0]),
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
        match self.log {
            true => self.decades(hint.max_num_points()),
            false => self.linear.key_points(hint),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A tick's number: as short as it can be.
pub(super) fn tick(value: &f64) -> String {
    // What addition left of a round number is not shown.
    let rounded = (value * 1e9).round() / 1e9;
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.0e}"),
        _ => rounded.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_round_ticks_within_its_range() {
        let wide = Axis::around([3e-4, 20.0].into_iter(), true);
        assert_eq!(wide.decades(20), [1e-3, 1e-2, 0.1, 1.0, 10.0]);
        let narrow = Axis::around([0.1, 1.0].into_iter(), true);
        assert_eq!(narrow.decades(20), [0.1, 0.2, 0.5, 1.0]);
    }

    #[test]
    fn one_value_has_room_on_both_sides() {
        for log in [false, true] {
            let axis = Axis::around([2.0].into_iter(), log);
            assert!(axis.range.start < 2.0 && axis.range.end > 2.0);
            assert!(axis.map(&2.0, (0, 100)).abs_diff(50) <= 1);
        }
    }

    #[test]
    fn ticks_are_short() {
        let ticks = [0.0, 0.30000000000000004, 20000.0, 1e6, 2e-5].map(|value| tick(&value));
        assert_eq!(ticks, ["0", "0.3", "20000", "1e6", "2e-5"]);
    }
}

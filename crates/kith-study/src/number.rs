//! Numbers as reports write them.

/// A number with four significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        size => {
            let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// The number of an axis tick, as short as it can be.
pub(super) fn tick(value: &f64) -> String {
    // Rounding hides what additions of floating-point numbers left of a round number.
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
    fn figures_have_four_digits() {
        let values = [0.0, 0.012346, 1.0, 123.456, 98765.4, 1.2346e-5, -0.5].map(short);
        assert_eq!(
            values,
            [
                "0", "0.01235", "1.000", "123.5", "98765", "1.235e-5", "-0.5000"
            ]
        );
    }

    #[test]
    fn ticks_are_short() {
        let ticks = [0.0, 0.30000000000000004, 20000.0, 1e6, 2e-5].map(|value| tick(&value));
        assert_eq!(ticks, ["0", "0.3", "20000", "1e6", "2e-5"]);
    }
}

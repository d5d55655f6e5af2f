//! A named figure and what it means, as a line of a table.

use std::fmt;

/// A line of a table of figures.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) meaning: String,
}

impl Figure {
    /// A number with `digits` behind the point.
    pub(crate) fn number(
        name: &'static str,
        value: f64,
        digits: usize,
        meaning: impl Into<String>,
    ) -> Self {
        Self {
            name,
            value: format!("{value:.digits$}"),
            meaning: meaning.into(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            meaning,
        } = self;
        write!(f, "{name:22} {value:>9}  {meaning}")
    }
}

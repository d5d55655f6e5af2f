//! What every format of files gives: the shapes of its arrays, and one array at a time.

use std::collections::BTreeMap;

use super::WeightsError;

/// The shapes of a file's arrays by name, and the way to read one.
pub(super) trait Source {
    /// The shapes of all arrays of floating-point or whole numbers.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>>;

    /// One array in row-major order, as 32-bit floats.
    fn read(&mut self, name: &str) -> Result<Vec<f32>, WeightsError>;
}

//! What every format of files gives: the shapes of its arrays, and one array at a time.

use std::collections::BTreeMap;

use super::WeightsError;
use kith_nn::POSITIVE_PREFIX;

/// The shapes of a file's arrays by name, and the way to read one.
pub(super) trait Source {
    /// The shapes of all arrays of floating-point or whole numbers.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>>;

    /// One array in row-major order, as 32-bit floats.
    fn read(&mut self, name: &str) -> Result<Vec<f32>, WeightsError>;
}

/// One of the encoders of a file of kith's, which may hold one for each side; any other file is all the anchor's.
pub(super) struct TowerSource<'a> {
    file: &'a mut dyn Source,
    /// What the names of its arrays begin with in the file.
    prefix: &'static str,
}

impl<'a> TowerSource<'a> {
    /// The arrays without the prefix of the positive's.
    pub(super) fn anchor(file: &'a mut dyn Source) -> Self {
        Self { file, prefix: "" }
    }

    /// The arrays of the positive's encoder, if there are any.
    pub(super) fn positive(file: &'a mut dyn Source) -> Option<Self> {
        let tower = Self {
            file,
            prefix: POSITIVE_PREFIX,
        };
        (!tower.shapes().is_empty()).then_some(tower)
    }
}

impl Source for TowerSource<'_> {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let own = |name: &String| name.starts_with(POSITIVE_PREFIX) != self.prefix.is_empty();
        let shapes = self.file.shapes().into_iter();
        shapes
            .filter(|(name, _)| own(name))
            .map(|(name, shape)| (name[self.prefix.len()..].to_owned(), shape))
            .collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        self.file.read(&format!("{}{name}", self.prefix))
    }
}

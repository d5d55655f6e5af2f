//! Images of one size, as they go through an encoder together.

use super::NnError;
use super::backend::Pixels;
use super::config::is_side;

/// Images of one size. The network's weights do not depend on it: an encoder can train on smaller images than it serves.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Pixels across each: a multiple of 32 from 32 to 224.
    pub side: usize,
    /// Concatenated they are `[images, side, side, 3]`.
    pub parts: &'a [&'a [f32]],
}

impl<'a> Images<'a> {
    pub(super) fn pixels(self) -> Result<Pixels<'a>, NnError> {
        let Self { side, parts } = self;
        if !is_side(side) {
            let message = format!("side {side} must be a multiple of 32 from 32 to 224");
            return Err(NnError::Config(message));
        }
        let values: usize = parts.iter().map(|part| part.len()).sum();
        let batch = values / (side * side * 3);
        if batch == 0 || batch * side * side * 3 != values {
            let message =
                format!("{values} values are not one or more images of {side} × {side} × 3");
            return Err(NnError::Config(message));
        }
        let shape = [batch, side, side, 3];
        Ok(Pixels { parts, shape })
    }
}

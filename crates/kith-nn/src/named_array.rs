//! Named arrays: weights and optimiser moments without a tensor library.

/// One named array in row-major order: the form in which weights and moments leave and enter this crate.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// torchvision's key, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The dimensions, outermost first, in PyTorch's order (convolutions: `[out, in, kernel, kernel]`).
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

impl NamedArray {
    /// Whether no value is infinite or not a number.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }
}

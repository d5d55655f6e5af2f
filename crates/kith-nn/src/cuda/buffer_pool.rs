//! The arrays of a captured graph, each used again once its content is not needed any more.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

/// The arrays of a captured graph. They stay at the addresses that the graph uses as long as the pool lives.
#[derive(Default)]
pub(super) struct GraphBufferPool {
    all: Vec<Tensor>,
    /// Those that are not in use at this point of the capture, by type and length.
    free: HashMap<(DType, usize), Vec<Tensor>>,
}

impl GraphBufferPool {
    /// A free array of `len` values of type `dtype`.
    pub(super) fn take(&mut self, dtype: DType, len: usize) -> Option<Tensor> {
        self.free.get_mut(&(dtype, len))?.pop()
    }

    /// Adds a new array, which is in use.
    pub(super) fn add(&mut self, tensor: Tensor) {
        self.all.push(tensor);
    }

    /// Lets a later array use the memory of `tensor`.
    pub(super) fn put(&mut self, tensor: Tensor) {
        let key = (tensor.dtype(), tensor.elem_count());
        self.free.entry(key).or_default().push(tensor);
    }
}

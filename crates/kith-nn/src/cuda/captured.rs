//! Captured passes with the arrays that they use.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, PinnedHostSlice};
use candle_core::{Result, Tensor};

use super::buffer_pool::GraphBufferPool;
use super::graph_table::{Entry, GraphTable};
use crate::backend::{LayerGradient, Outputs, SavedActivations, collect_outputs};

/// The content of a [`crate::backend::GraphCache`]: graphs of encoding, or graphs of training.
#[derive(Default)]
pub(super) struct CapturedGraphs {
    pub(super) encoding: GraphTable<CapturedPass>,
    /// Two graphs of one size, which the parts of a larger batch use in turn.
    pub(super) parts: GraphTable<[CapturedPass; 2]>,
    pub(super) training: GraphTable<Arc<CapturedStep>>,
}

/// A captured pass that only encodes. Its input and outputs have fixed addresses; all other memory is allocated and freed within the graph.
pub(super) struct CapturedPass {
    pub(super) graph: CudaGraph,
    /// `[batch · side · side · 3]`, as uploaded.
    pub(super) pixels: Tensor,
    pub(super) outputs: Outputs<PinnedHostSlice<f32>>,
}

// SAFETY: a graph may be used by several threads one after the other. The thread that launches it has taken it out of its table.
unsafe impl Send for CapturedPass {}

impl CapturedPass {
    /// The outputs of the last launch, which must have ended.
    pub(super) fn outputs(&self) -> Result<Outputs<Vec<f32>>> {
        let outputs = self.outputs.each_ref();
        collect_outputs(outputs.map(|output| Ok(output.as_slice().w()?.to_vec())))
    }
}

/// A captured forward and backward pass on arrays with fixed addresses.
pub(super) struct CapturedStep {
    /// `[rows, side, side, 3]`, as uploaded.
    pub(super) pixels: Tensor,
    /// The gradient of the embeddings.
    pub(super) gradient: Tensor,
    pub(super) forward: CudaGraph,
    pub(super) embedding: PinnedHostSlice<f32>,
    pub(super) saved: SavedActivations,
    pub(super) backward: Mutex<BackwardState>,
    /// Whether a [`StepLease`] exists.
    pub(super) leased: AtomicBool,
}

/// The backward pass, which is captured later than the forward pass.
pub(super) struct BackwardState {
    pub(super) graph: Entry<(CudaGraph, Vec<LayerGradient>)>,
    /// The arrays of both passes.
    pub(super) pool: GraphBufferPool,
}

// SAFETY: a graph may be used by several threads one after the other. Only the holder of the lease launches both graphs, the backward one
// under its mutex as well. All else is plain memory.
unsafe impl Send for CapturedStep {}
unsafe impl Sync for CapturedStep {}

/// The exclusive right to a step's arrays.
pub(super) struct StepLease(pub(super) Arc<CapturedStep>);

impl StepLease {
    /// The lease of `step`. `None` while another one exists.
    pub(super) fn acquire(step: &Arc<CapturedStep>) -> Option<Self> {
        let free = !step.leased.swap(true, Ordering::AcqRel);
        free.then(|| Self(step.clone()))
    }
}

impl Drop for StepLease {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::Release);
    }
}

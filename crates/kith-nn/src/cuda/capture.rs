//! CUDA graph capture: operations are recorded as a graph, which is then launched by one call.
#![allow(unsafe_code)]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, result, sys};
use candle_core::{Result, bail};

use super::stream_context::CudaStreamContext;

impl CudaStreamContext {
    /// Captures the operations that `queue` queues on this stream. They do not run.
    pub(super) fn capture(&self, queue: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.stream
            .begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED)
            .w()?;
        let queued = queue();
        // Arrays that are freed after a capture broke leave an error, which would keep it from being ended.
        let broken = self.stream.context().check_err();
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        queued?;
        broken.w()?;
        match graph.w()? {
            Some(graph) => Ok(graph),
            None => bail!("nothing was captured"),
        }
    }

    /// Queues the operations of `graph`.
    ///
    /// # Safety
    /// The arrays that it reads and writes must be at the addresses that they had during the capture, and it must not be running.
    pub(super) unsafe fn launch_graph(&self, graph: &CudaGraph) -> Result<()> {
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the graph is complete; the caller sees to the rest.
        unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream.cu_stream()) }.w()
    }

    /// Clears the memory and the errors that a failed capture has left. The errors have been reported.
    pub(super) fn clear_failed_capture(&self) {
        let reported = self.stream.context().check_err().w();
        for error in [reported, self.trim()].into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "after a failed graph capture");
        }
    }
}

//! A CUDA stream with the state that its operations share.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, result, sys};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{Result, Tensor};

use super::ahead_memory::AheadMemory;
use super::arrays::Span;
use super::buffer_pool::GraphBufferPool;
use super::staging::PinnedStaging;
use crate::{CudaConfig, Purpose};

/// A CUDA stream of a GPU, with its memory bound, its kernels and the pinned memory for uploads.
pub(super) struct CudaStreamContext {
    /// candle's handle, which tensors carry. Nothing runs on the stream of its own.
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
    /// The stream of uploads that run while this one computes.
    pub(super) upload_stream: Arc<CudaStream>,
    priority: i32,
    /// The source of arrays during a capture that keeps them.
    pub(super) pool: Mutex<Option<GraphBufferPool>>,
    /// The stream that will launch the captured graphs.
    pub(super) launch_stream: Arc<CudaStream>,
    pub(super) functions: HashMap<&'static str, CudaFunction>,
    /// Pinned memory that no upload uses. More is allocated when needed.
    pub(super) staging: Mutex<Vec<PinnedStaging>>,
    /// The memory of pixels that are uploaded ahead.
    pub(super) ahead: Arc<Mutex<AheadMemory>>,
    /// Maximum bytes of all arrays. 0: no bound.
    pub(super) max_bytes: u64,
}

impl CudaStreamContext {
    /// Opens GPU `ordinal`; the error says what is missing.
    pub(super) fn open(
        ordinal: usize,
        purpose: Purpose,
        config: &CudaConfig,
    ) -> std::result::Result<Self, String> {
        let device = CudaDevice::new(ordinal).map_err(|error| {
            let message = error.to_string();
            // The lines after the first one are the library's backtrace.
            let error = message.lines().next().unwrap_or_default();
            format!(
                "{error} (`nvidia-smi` lists the GPUs, and the driver, which must be as new as the CUDA of this build)"
            )
        })?;
        // SAFETY: every array is allocated, used and freed on this stream alone, in order.
        unsafe { device.disable_event_tracking() };
        let context = device.cuda_stream().context().clone();
        let (least, greatest) = result::stream::get_priority_range().map_err(text)?;
        let priority = match purpose {
            Purpose::Serving => greatest,
            Purpose::Training => least,
        };
        let [stream, upload_stream] = [(); 2].map(|()| context.new_stream_with_priority(priority));
        let (stream, upload_stream) = (stream.map_err(text)?, upload_stream.map_err(text)?);
        keep_freed_memory(context.cu_device()).map_err(text)?;
        Ok(Self {
            device,
            launch_stream: stream.clone(),
            stream,
            upload_stream,
            priority,
            pool: Mutex::default(),
            functions: HashMap::new(),
            staging: Mutex::default(),
            ahead: Arc::default(),
            max_bytes: (config.memory_mb as u64) << 20,
        })
    }

    /// Another stream of the same GPU with the same kernels, to capture graphs that this one launches. It has the same priority, since a graph keeps
    /// that of its capture.
    pub(super) fn for_capture(&self) -> std::result::Result<Self, String> {
        let context = self.stream.context();
        let stream = context.new_stream_with_priority(self.priority);
        Ok(Self {
            device: self.device.clone(),
            stream: stream.map_err(text)?,
            upload_stream: self.upload_stream.clone(),
            priority: self.priority,
            pool: Mutex::default(),
            launch_stream: self.stream.clone(),
            functions: self.functions.clone(),
            staging: Mutex::default(),
            ahead: Arc::default(),
            max_bytes: self.max_bytes,
        })
    }

    /// Makes the GPU's context current on the calling thread. Without it, arrays that the thread drops are not freed.
    pub(super) fn bind_thread(&self) {
        // SAFETY: the context lives as long as its streams. An error is reported by the next operation.
        let _ = unsafe { result::ctx::set_current(self.stream.context().cu_ctx()) };
    }

    /// Whether the GPU multiplies matrices of bf16.
    pub(super) fn has_bf16(&self) -> bool {
        let capability = self.stream.context().compute_capability();
        capability.is_ok_and(|(major, _)| major >= 8)
    }

    /// The values of `tensor`.
    pub(super) fn span<'a, T: CudaDType>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, T>> {
        Span::from_tensor(tensor, &self.stream)
    }
}

/// Makes the driver keep freed memory for later arrays: asking the system in each step would take longer than the step.
fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), result::DriverError> {
    let mut forever = u64::MAX;
    // SAFETY: the device is open, and the attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_mem_pool(device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut forever).cast())
    }
}

/// The text of a driver's error.
pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! A queue of work on a GPU with what it needs: memory under a bound, copies through pinned pages, kernels by name.
//! Must never know: what is computed.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaGraph, CudaSlice, CudaStream, DeviceRepr, LaunchConfig, PinnedHostSlice,
    PushKernelArg, ValidAsZeroBits, result, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDType, CudaDevice, WrapErr};
use candle_core::{Result, Tensor, bail};

use super::arrays::{Span, Wire};
use super::memory::Shelf;
use super::pages::Pages;
use crate::{CudaConfig, Purpose};

/// The source of the kernels, but for the choice of type.
const SOURCE: &str = include_str!("kernels.cu");
/// All kernels in it.
const KERNELS: [&str; 18] = [
    "pad_pixels",
    "pack_weights",
    "unpack_weights",
    "narrow_all",
    "widen_all",
    "finish",
    "mask",
    "max_pool",
    "max_pool_gradient",
    "mean",
    "mean_gradient",
    "normalize",
    "normalize_gradient",
    "sum_rows",
    "sum_parts",
    "add",
    "sum_squares",
    "update",
];

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    At(sys::CUdeviceptr),
    Size(u64),
    Int(i32),
    Float(f32),
    Rule(RuleArg),
}

/// The kernels' `Rule`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RuleArg {
    pub(super) flags: [i32; 2],
    pub(super) constants: [f32; 7],
}

// SAFETY: laid out as the kernels declare it, plain numbers throughout.
unsafe impl DeviceRepr for RuleArg {}

impl<T> From<Span<'_, T>> for Arg {
    fn from(span: Span<'_, T>) -> Self {
        Self::At(span.at)
    }
}

/// A queue of work on a GPU.
pub(super) struct Lane {
    /// candle's handle, which tensors carry. Nothing runs on its own stream.
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
    /// Where values arrive while this queue computes.
    copies: Arc<CudaStream>,
    priority: i32,
    /// Where arrays are kept while a recording is made that keeps them, and the queue that will run it.
    pub(super) shelf: Mutex<Option<Shelf>>,
    pub(super) home: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
    /// Those that nobody copies through; made when needed.
    pages: Mutex<Vec<Pages>>,
    /// Most bytes that arrays may take; 0: no bound of ours.
    pub(super) most_bytes: u64,
}

impl Lane {
    /// Opens GPU `ordinal`; the error says what is missing.
    pub(super) fn open(
        ordinal: usize,
        purpose: Purpose,
        config: &CudaConfig,
    ) -> std::result::Result<Self, String> {
        let device = CudaDevice::new(ordinal).map_err(|error| {
            let said = error.to_string();
            // Behind the first line come the library's own places.
            let error = said.lines().next().unwrap_or_default();
            format!(
                "{error} (`nvidia-smi` lists the GPUs, and the driver, which must be as new as the CUDA of this build)"
            )
        })?;
        // SAFETY: every array is made, used and freed on this lane's stream alone, in order.
        unsafe { device.disable_event_tracking() };
        let context = device.cuda_stream().context().clone();
        let (least, greatest) = result::stream::get_priority_range().map_err(text)?;
        let priority = match purpose {
            Purpose::Serving => greatest,
            Purpose::Training => least,
        };
        let [stream, copies] = [(); 2].map(|()| context.new_stream_with_priority(priority));
        let (stream, copies) = (stream.map_err(text)?, copies.map_err(text)?);
        keep_freed_memory(context.cu_device()).map_err(text)?;
        Ok(Self {
            device,
            home: stream.clone(),
            stream,
            copies,
            priority,
            shelf: Mutex::default(),
            functions: HashMap::new(),
            pages: Mutex::default(),
            most_bytes: (config.memory_mb as u64) << 20,
        })
    }

    /// Another queue of the same GPU, with the same kernels, for recordings that this one runs. It has the same priority, which is recorded.
    pub(super) fn beside(&self) -> std::result::Result<Self, String> {
        let context = self.stream.context();
        let stream = context.new_stream_with_priority(self.priority);
        Ok(Self {
            device: self.device.clone(),
            stream: stream.map_err(text)?,
            copies: self.copies.clone(),
            priority: self.priority,
            shelf: Mutex::default(),
            home: self.stream.clone(),
            functions: self.functions.clone(),
            pages: Mutex::default(),
            most_bytes: self.most_bytes,
        })
    }

    /// Makes the GPU this thread's: arrays that a thread without one drops are not given back.
    pub(super) fn enter(&self) {
        // SAFETY: the context lives as long as its streams. An error here is one there, where it is told.
        let _ = unsafe { result::ctx::set_current(self.stream.context().cu_ctx()) };
    }

    /// Compiles the kernels for maps of 16 or of 32 bits.
    pub(super) fn load_kernels(&mut self, half: bool) -> std::result::Result<(), String> {
        let source = format!("#define HALF {}\n{SOURCE}", u8::from(half));
        let code = compile_ptx(source)
            .map_err(|error| format!("the kernels cannot be compiled: {error}"))?;
        let module = self.stream.context().load_module(code).map_err(text)?;
        for name in KERNELS.into_iter().chain(["root_of_sum"]) {
            let function = module.load_function(name).map_err(text)?;
            self.functions.insert(name, function);
        }
        Ok(())
    }

    /// Whether the GPU multiplies matrices of bf16.
    pub(super) fn has_bf16(&self) -> bool {
        let capability = self.stream.context().compute_capability();
        capability.is_ok_and(|(major, _)| major >= 8)
    }

    pub(super) fn span<'a, T: CudaDType>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, T>> {
        Span::of(tensor, &self.stream)
    }

    /// Copies `values` to a new tensor. Returns before the last has left.
    pub(super) fn upload(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.build::<f32>(shape, |target| self.upload_to(&[values], target))
    }

    /// Copies `parts`, one after the other, to `target`; the rest of it becomes zero. Returns before the last has left.
    pub(super) fn upload_to<T: Wire>(&self, parts: &[&[f32]], target: Span<'_, T>) -> Result<()> {
        self.upload_on(&self.stream, parts, target)
    }

    /// [`Lane::upload_to`] while this queue computes; what is queued afterwards waits for it.
    ///
    /// Nothing that is queued may use `target` still.
    pub(super) fn upload_beside<T: Wire>(
        &self,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let sent = self.upload_on(&self.copies, parts, target);
        // Even if not all was sent: what is queued next may give the target back.
        self.stream.join(&self.copies).w()?;
        sent
    }

    fn upload_on<T: Wire>(
        &self,
        stream: &Arc<CudaStream>,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let lock = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // Not locked while the pool copies: a thread that waits for others there takes up other work, which may be an upload.
        let taken = lock().pop();
        let mut pages = match taken {
            Some(pages) => pages,
            None => Pages::new(stream).w()?,
        };
        pages.upload(stream, parts, target)?;
        lock().push(pages);
        Ok(())
    }

    /// Pinned memory for values that come back, of which the CPU reads.
    pub(super) fn pinned(&self, len: usize) -> Result<PinnedHostSlice<f32>> {
        let context = self.stream.context();
        // SAFETY: only read where the GPU has written.
        unsafe { context.alloc_pinned_with_flags(len, 0) }.w()
    }

    /// Queues a copy of `span` to `output`, which must not be read before it is done.
    pub(super) fn fetch(
        &self,
        span: Span<'_, f32>,
        output: &mut PinnedHostSlice<f32>,
    ) -> Result<()> {
        let output = &mut output.as_mut_slice().w()?[..span.len];
        // SAFETY: as many values on both sides; the caller keeps `output`.
        unsafe { result::memcpy_dtoh_async(output, span.at, self.stream.cu_stream()) }.w()
    }

    /// Records what `queue` queues here, none of which runs.
    pub(super) fn record(&self, queue: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.stream
            .begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED)
            .w()?;
        let queued = queue();
        // Arrays that are given back after a recording broke leave an error, which would keep it from being ended.
        let broken = self.stream.context().check_err();
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        queued?;
        broken.w()?;
        match graph.w()? {
            Some(graph) => Ok(graph),
            None => bail!("nothing was recorded"),
        }
    }

    /// Queues what `graph` has recorded.
    ///
    /// # Safety
    /// All places that it reads and writes must be what they were when it was recorded, and it must not run already.
    pub(super) unsafe fn run(&self, graph: &CudaGraph) -> Result<()> {
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the graph is whole; the rest is the caller's.
        unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream.cu_stream()) }.w()
    }

    /// Clears what a recording that failed has left: its memory, and errors that have been told by now.
    pub(super) fn forget_recordings(&self) {
        let told = self.stream.context().check_err().w();
        for error in [told, self.trim()].into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "after a failed recording");
        }
    }

    /// Copies a short table of numbers.
    pub(super) fn table(&self, numbers: &[u64]) -> Result<CudaSlice<u64>> {
        let mut table = self.take(numbers.len())?;
        self.stream.memcpy_htod(numbers, &mut table).w()?;
        Ok(table)
    }

    /// Waits for the values and copies them.
    pub(super) fn download<T: DeviceRepr + ValidAsZeroBits>(
        &self,
        span: Span<'_, T>,
    ) -> Result<Vec<T>> {
        let values = self.stream.clone_dtoh(&span).w()?;
        self.stream.synchronize().w()?;
        Ok(values)
    }

    /// Queues `kernel` with a thread for each of `count`.
    pub(super) fn each(&self, kernel: &str, count: usize, args: &[Arg]) -> Result<()> {
        let blocks = u32::try_from(count.div_ceil(256)).map_err(candle_core::Error::wrap)?;
        self.launch(kernel, (blocks, 1), (256, 1), args)
    }

    /// Queues `kernel` on a grid of blocks of threads. `args` must be those that the kernel declares, with room for all it writes.
    pub(super) fn launch(
        &self,
        kernel: &str,
        grid: (u32, u32),
        block: (u32, u32),
        args: &[Arg],
    ) -> Result<()> {
        let Some(function) = self.functions.get(kernel) else {
            bail!("no kernel {kernel}")
        };
        self.stream.context().bind_to_thread().w()?;
        let mut launch = self.stream.launch_builder(function);
        for arg in args {
            match arg {
                Arg::At(at) => launch.arg(at),
                Arg::Size(size) => launch.arg(size),
                Arg::Int(int) => launch.arg(int),
                Arg::Float(float) => launch.arg(float),
                Arg::Rule(rule) => launch.arg(rule),
            };
        }
        let config = LaunchConfig {
            grid_dim: (grid.0, grid.1, 1),
            block_dim: (block.0, block.1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: each call site passes what its kernel declares in `kernels.cu`.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }
}

/// Freed arrays stay with the process for the next ones, as long as it lives: asking the system in each step would take longer than the step.
fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), result::DriverError> {
    let mut forever = u64::MAX;
    // SAFETY: the device is open, and the attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_mem_pool(device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut forever).cast())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! Kernels: compiled, found by name and launched with their arguments.
#![allow(unsafe_code)]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg, sys};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::{Result, bail};

use super::arrays::Span;
use super::stream_context::{CudaStreamContext, text};

/// The source of the kernels without the choice of their type.
const SOURCE: &str = include_str!("kernels.cu");
/// What stands before the name of each kernel in it.
const DEFINITION: &str = "__global__ void ";

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    /// An address in the GPU's memory.
    At(sys::CUdeviceptr),
    Size(u64),
    Int(i32),
    Float(f32),
    Rule(RuleArg),
}

/// The `Rule` of `kernels.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RuleArg {
    pub(super) flags: [i32; 2],
    pub(super) constants: [f32; 7],
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for RuleArg {}

impl<T> From<Span<'_, T>> for Arg {
    fn from(span: Span<'_, T>) -> Self {
        Self::At(span.at)
    }
}

impl CudaStreamContext {
    /// Compiles the kernels for activations of 16 bits (`half`) or 32.
    pub(super) fn load_kernels(&mut self, half: bool) -> std::result::Result<(), String> {
        let source = format!("#define HALF {}\n{SOURCE}", u8::from(half));
        let code = compile_ptx(source)
            .map_err(|error| format!("the kernels cannot be compiled: {error}"))?;
        let module = self.stream.context().load_module(code).map_err(text)?;
        let definitions = SOURCE.split(DEFINITION).skip(1);
        for (name, _) in definitions.filter_map(|rest| rest.split_once('(')) {
            let function = module.load_function(name).map_err(text)?;
            self.functions.insert(name, function);
        }
        Ok(())
    }

    /// Queues `kernel` with `count` threads.
    pub(super) fn each(&self, kernel: &str, count: usize, args: &[Arg]) -> Result<()> {
        let blocks = u32::try_from(count.div_ceil(256)).map_err(candle_core::Error::wrap)?;
        self.launch(kernel, (blocks, 1), (256, 1), args)
    }

    /// Queues `kernel` on a grid of blocks of threads. `args` must be those that the kernel declares, and hold all that it writes.
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

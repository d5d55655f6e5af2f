//! Allocation of arrays on the GPU under a bound, from the driver's pool or from that of a captured graph.
#![allow(unsafe_code)]

use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DeviceRepr, DriverError, result, sys,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Result, Shape, Storage, Tensor};

use super::arrays::{Element, Span};
use super::buffer_pool::GraphBufferPool;
use super::stream_context::CudaStreamContext;
use crate::error::OutOfMemory;

impl CudaStreamContext {
    /// Memory for `len` values of unspecified content.
    pub(super) fn take<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        self.take_on(&self.stream, len)
    }

    fn take_on<T: DeviceRepr>(&self, stream: &Arc<CudaStream>, len: usize) -> Result<CudaSlice<T>> {
        // The driver refuses empty arrays.
        let (len, bytes) = (len.max(1), (len * size_of::<T>()) as u64);
        if !self.has_room(bytes)? {
            return out_of_memory(format!(
                "an array of {bytes} bytes exceeds cuda.memory_mb ({}): raise it, or lower serving.max_batch or training.batch",
                self.max_bytes >> 20
            ));
        }
        // SAFETY: each caller writes all of it before anything reads it.
        let alloc = || unsafe { stream.alloc(len) };
        let is_full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        match alloc() {
            Err(error) if is_full(&error) => {
                self.trim()?;
                alloc().or_else(|error| {
                    if is_full(&error) {
                        out_of_memory(format!(
                            "the GPU has no {bytes} bytes left: lower serving.max_batch or training.batch, or free memory on it"
                        ))
                    } else {
                        Err(error).w()
                    }
                })
            }
            taken => taken.w(),
        }
    }

    /// Bytes of all arrays of the process, those within graphs included.
    fn used(&self) -> Result<u64> {
        let (mut used, mut in_graphs) = (0_u64, 0_u64);
        let device = self.stream.context().cu_device();
        // SAFETY: the device is open, and the attributes are 64-bit numbers.
        unsafe {
            let pool = result::device::get_mem_pool(device).w()?;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut used).cast()).w()?;
            let attribute = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT;
            let at = (&raw mut in_graphs).cast();
            sys::cuDeviceGetGraphMemAttribute(device, attribute, at)
                .result()
                .w()?;
        }
        Ok(used + in_graphs)
    }

    /// Whether `bytes` more are within the bound, if necessary after freeing the memory of graphs that are gone.
    fn has_room(&self, bytes: u64) -> Result<bool> {
        if self.max_bytes == 0 || self.used()? + bytes <= self.max_bytes {
            return Ok(true);
        }
        self.trim()?;
        Ok(self.used()? + bytes <= self.max_bytes)
    }

    /// An error if graphs have allocated more than the bound.
    pub(super) fn check_bound(&self) -> Result<()> {
        if self.has_room(0)? {
            Ok(())
        } else {
            out_of_memory("captured graphs exceed cuda.memory_mb".to_owned())
        }
    }

    /// Frees the memory of graphs that are not running. Those that are kept allocate it again when they run.
    pub(super) fn trim(&self) -> Result<()> {
        // SAFETY: the device is open.
        unsafe { sys::cuDeviceGraphMemTrim(self.stream.context().cu_device()) }
            .result()
            .w()
    }

    /// A new tensor of `shape`. `fill` must queue writes of all of it.
    pub(super) fn build<T: Element>(
        &self,
        shape: impl Into<Shape>,
        fill: impl FnOnce(Span<'_, T>) -> Result<()>,
    ) -> Result<Tensor> {
        let tensor = self.array::<T>(shape.into())?;
        fill(self.span(&tensor)?)?;
        Ok(tensor)
    }

    /// An array of `len` values for intermediate results.
    pub(super) fn scratch<T: Element>(&self, len: usize) -> Result<Tensor> {
        self.array::<T>(len.into())
    }

    fn array<T: Element>(&self, shape: Shape) -> Result<Tensor> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pool) = &mut *pool else {
            let slice = self.take::<T>(shape.elem_count())?;
            return Ok(self.tensor(slice, shape));
        };
        if let Some(tensor) = pool.take(T::DTYPE, shape.elem_count()) {
            return tensor.reshape(shape);
        }
        let slice = self.take_on::<T>(&self.launch_stream, shape.elem_count())?;
        let tensor = self.tensor(slice, shape);
        pool.add(tensor.clone());
        Ok(tensor)
    }

    /// During a capture with a pool, lets the next array of this type and length use the memory of `tensor`. Otherwise the driver's pool takes it
    /// when the last handle is dropped.
    pub(super) fn recycle(&self, tensor: Tensor) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &mut *pool {
            pool.put(tensor);
        }
    }

    /// Makes later arrays come from `pool`, or from the driver. Returns the pool before.
    pub(super) fn set_pool(&self, pool: Option<GraphBufferPool>) -> Option<GraphBufferPool> {
        let mut here = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut here, pool)
    }

    fn tensor<T: CudaDType>(&self, slice: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let none = BackpropOp::none();
        Tensor::from_storage(Storage::Cuda(storage), shape, none, false)
    }
}

fn out_of_memory<T>(what: String) -> Result<T> {
    Err(candle_core::Error::Cuda(Box::new(OutOfMemory(what))))
}

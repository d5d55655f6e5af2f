//! The GPU's memory: arrays under a bound, given back to the driver's pool or kept for a recording. Must never know: what they hold.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DeviceRepr, DriverError, result, sys,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Result, Shape, Storage, Tensor};

use super::arrays::{Element, Span};
use super::lane::Lane;
use crate::Exhausted;

/// Arrays of a recording: as long as it lives they lie where it expects them.
#[derive(Default)]
pub(super) struct Shelf {
    all: Vec<Tensor>,
    /// Those that are not in use at this place of the recording, by type and length.
    free: HashMap<(DType, usize), Vec<Tensor>>,
}

impl Lane {
    /// Memory for `len` values, which hold whatever was there.
    pub(super) fn take<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        self.take_on(&self.stream, len)
    }

    fn take_on<T: DeviceRepr>(&self, stream: &Arc<CudaStream>, len: usize) -> Result<CudaSlice<T>> {
        // No array is empty: the driver does not give out nothing.
        let (len, bytes) = (len.max(1), (len * size_of::<T>()) as u64);
        if !self.has_room(bytes)? {
            return exhausted(format!(
                "an array of {bytes} bytes exceeds cuda.memory_mb ({}): raise it, or lower serving.max_batch or training.batch",
                self.most_bytes >> 20
            ));
        }
        // SAFETY: each caller writes all of it before anything reads it.
        let alloc = || unsafe { stream.alloc(len) };
        let is_full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        match alloc() {
            Err(error) if is_full(&error) => {
                self.trim()?;
                alloc().or_else(|error| match is_full(&error) {
                    true => exhausted(format!(
                        "the GPU has no {bytes} bytes left: lower serving.max_batch or training.batch, or free memory on it"
                    )),
                    false => Err(error).w(),
                })
            }
            taken => taken.w(),
        }
    }

    /// Bytes of all arrays of the process, those within recordings included.
    fn used(&self) -> Result<u64> {
        let (mut used, mut recorded) = (0_u64, 0_u64);
        let device = self.stream.context().cu_device();
        // SAFETY: the device is open, and the attributes are 64-bit numbers.
        unsafe {
            let pool = result::device::get_mem_pool(device).w()?;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut used).cast()).w()?;
            let attribute = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT;
            let at = (&raw mut recorded).cast();
            sys::cuDeviceGetGraphMemAttribute(device, attribute, at)
                .result()
                .w()?;
        }
        Ok(used + recorded)
    }

    /// Whether so many bytes more are within the bound, if need be without what recordings hold that are gone.
    fn has_room(&self, bytes: u64) -> Result<bool> {
        if self.most_bytes == 0 || self.used()? + bytes <= self.most_bytes {
            return Ok(true);
        }
        self.trim()?;
        Ok(self.used()? + bytes <= self.most_bytes)
    }

    /// An error if recordings have taken more than is allowed.
    pub(super) fn check_bound(&self) -> Result<()> {
        match self.has_room(0)? {
            true => Ok(()),
            false => exhausted("recordings exceed cuda.memory_mb".to_owned()),
        }
    }

    /// Gives back the memory of recordings that are not running; those that are kept take it again when they run.
    pub(super) fn trim(&self) -> Result<()> {
        // SAFETY: the device is open.
        unsafe { sys::cuDeviceGraphMemTrim(self.stream.context().cu_device()) }
            .result()
            .w()
    }

    /// A new tensor of `shape`, all of which `fill` must write.
    pub(super) fn build<T: Element>(
        &self,
        shape: impl Into<Shape>,
        fill: impl FnOnce(Span<'_, T>) -> Result<()>,
    ) -> Result<Tensor> {
        let tensor = self.array::<T>(shape.into())?;
        fill(self.span(&tensor)?)?;
        Ok(tensor)
    }

    /// Room for `len` values, for what is written and read in passing.
    pub(super) fn scratch<T: Element>(&self, len: usize) -> Result<Tensor> {
        self.array::<T>(len.into())
    }

    fn array<T: Element>(&self, shape: Shape) -> Result<Tensor> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shelf) = &mut *shelf else {
            let slice = self.take::<T>(shape.elem_count())?;
            return Ok(self.tensor(slice, shape));
        };
        let key = (T::DTYPE, shape.elem_count());
        if let Some(tensor) = shelf.free.entry(key).or_default().pop() {
            return tensor.reshape(shape);
        }
        let slice = self.take_on::<T>(&self.home, shape.elem_count())?;
        let tensor = self.tensor(slice, shape);
        shelf.all.push(tensor.clone());
        Ok(tensor)
    }

    /// Lets the next array of this type and length have the memory, in a recording that keeps its arrays; else the driver's pool takes it
    /// when the last handle is dropped.
    pub(super) fn recycle(&self, tensor: Tensor) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = &mut *shelf {
            let key = (tensor.dtype(), tensor.elem_count());
            shelf.free.entry(key).or_default().push(tensor);
        }
    }

    /// From now on arrays are kept on `shelf`, or no more; gives the shelf before.
    pub(super) fn keep_on(&self, shelf: Option<Shelf>) -> Option<Shelf> {
        let mut here = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut here, shelf)
    }

    fn tensor<T: CudaDType>(&self, slice: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let none = BackpropOp::none();
        Tensor::from_storage(Storage::Cuda(storage), shape, none, false)
    }
}

fn exhausted<T>(what: String) -> Result<T> {
    Err(candle_core::Error::Cuda(Box::new(Exhausted(what))))
}

//! candle tensors on the CPU as slices, which the kernels read and write.

use std::cell::Cell;
use std::ops::Deref;

use candle_core::{
    CpuStorage, Device, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, Tensor, bail,
};

use super::kernels::scratch;

/// Read access to a contiguous `f32` tensor.
pub(super) struct View<'a> {
    storage: StorageRef<'a>,
    range: (usize, usize),
}

impl View<'_> {
    /// A view of `tensor`. An error if it is not on the CPU, not f32 or not contiguous.
    pub(super) fn new(tensor: &Tensor) -> Result<View<'_>> {
        let (storage, layout) = tensor.storage_and_layout();
        let range = contiguous(layout)?;
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(View { storage, range }),
            _ => bail!("not an f32 tensor on the CPU"),
        }
    }
}

impl Deref for View<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.0..self.range.1],
            _ => unreachable!("checked when opened"),
        }
    }
}

/// Calls `work` with the values of `tensor`, which it may change in place.
pub(super) fn write<T>(tensor: &Tensor, work: impl FnOnce(&mut [f32]) -> T) -> Result<T> {
    let op = Write {
        work: Cell::new(Some(work)),
        result: Cell::new(None),
    };
    tensor.inplace_op1(&op)?;
    match op.result.into_inner() {
        Some(result) => Ok(result),
        None => bail!("the tensor library did not run the operation"),
    }
}

struct Write<F, T> {
    work: Cell<Option<F>>,
    result: Cell<Option<T>>,
}

impl<T, F: FnOnce(&mut [f32]) -> T> InplaceOp1 for Write<F, T> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (start, end) = contiguous(layout)?;
        match (storage, self.work.take()) {
            (CpuStorage::F32(values), Some(work)) => {
                self.result.set(Some(work(&mut values[start..end])))
            }
            _ => bail!("not an f32 tensor on the CPU"),
        }
        Ok(())
    }
}

fn contiguous(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(range) => Ok(range),
        None => bail!("not a contiguous tensor"),
    }
}

/// A new tensor of `shape`. `fill` must write all of it: the slice holds values of earlier uses.
pub(super) fn build(shape: impl Into<Shape>, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let shape = shape.into();
    filled(scratch::take(shape.elem_count()), shape, fill)
}

/// [`build`] for a tensor that is kept for long.
pub(super) fn build_to_keep(
    shape: impl Into<Shape>,
    fill: impl FnOnce(&mut [f32]),
) -> Result<Tensor> {
    let shape = shape.into();
    filled(scratch::take_to_keep(shape.elem_count()), shape, fill)
}

fn filled(mut values: Vec<f32>, shape: Shape, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    fill(&mut values);
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Lets a later [`build`] use the memory of `tensor`. No other handle to its storage may be used afterwards: the storage is empty then.
pub(super) fn recycle(tensor: Tensor) -> Result<()> {
    tensor.inplace_op1(&Recycle)
}

struct Recycle;

impl InplaceOp1 for Recycle {
    fn name(&self) -> &'static str {
        "recycle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        if let CpuStorage::F32(values) = storage {
            scratch::put(std::mem::take(values));
        }
        Ok(())
    }
}

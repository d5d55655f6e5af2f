//! Tensors as places in the GPU's memory: the seam between candle, which holds them, and what is launched on them.
//! Must never know: what is computed.

use std::marker::PhantomData;
use std::sync::Arc;

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::cublas::Gemm;
use candle_core::cuda_backend::cudarc::cudnn::CudnnDataType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, SyncOnDrop, sys::CUdeviceptr,
};
use candle_core::cuda_backend::cudarc::{cublas::CudaBlas, driver::ValidAsZeroBits};
use candle_core::{Result, Storage, Tensor, WithDType, bail};
use half::bf16;

/// What tensors on a GPU may be made of.
pub(super) trait Element: CudaDType + DeviceRepr + WithDType {}

impl<T: CudaDType + DeviceRepr + WithDType> Element for T {}

/// What floats may travel to the GPU as. Any bits are one.
pub(super) trait Wire: Element + Copy + Send + Sync + 'static {
    /// Writes `from`, rounded to the nearest, to `to`.
    fn copy(from: &[f32], to: &mut [Self]);
}

impl Wire for f32 {
    fn copy(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl Wire for bf16 {
    fn copy(from: &[f32], to: &mut [Self]) {
        // Half the bytes on the bus, and as the kernels would round them.
        pulp::Arch::new().dispatch(|| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = Self::from_f32(*from);
            }
        });
    }
}

/// What maps and products may be made of.
pub(super) trait Value: Wire + CudnnDataType + ValidAsZeroBits
where
    CudaBlas: Gemm<Self>,
{
    /// Whether it has 16 bits: chooses the kernels.
    const HALF: bool;

    /// A factor of a product.
    fn of(factor: f32) -> Self;
}

impl Value for f32 {
    const HALF: bool = false;

    fn of(factor: f32) -> Self {
        factor
    }
}

impl Value for bf16 {
    const HALF: bool = true;

    fn of(factor: f32) -> Self {
        Self::from_f32(factor)
    }
}

/// Where values lie in the GPU's memory, for work on `stream`, the only one that ever touches them: so nothing has to be waited for.
#[derive(Clone, Copy)]
pub(super) struct Span<'a, T> {
    pub(super) at: CUdeviceptr,
    pub(super) len: usize,
    stream: &'a Arc<CudaStream>,
    values: PhantomData<&'a T>,
}

impl<'a, T> Span<'a, T> {
    pub(super) fn new(slice: &'a impl DevicePtr<T>, stream: &'a Arc<CudaStream>) -> Self {
        Self {
            at: slice.device_ptr(stream).0,
            len: slice.len(),
            stream,
            values: PhantomData,
        }
    }
}

impl<'a, T: CudaDType> Span<'a, T> {
    /// The values of `tensor`, which must be contiguous and of this type.
    pub(super) fn of(tensor: &'a Tensor, stream: &'a Arc<CudaStream>) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("not a tensor on a GPU")
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("not a contiguous tensor")
        };
        let slice = storage.as_cuda_slice::<T>()?;
        Ok(Self {
            at: slice.device_ptr(stream).0 + (start * size_of::<T>()) as CUdeviceptr,
            len: end - start,
            stream,
            values: PhantomData,
        })
    }
}

impl<T> DeviceSlice<T> for Span<'_, T> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl<T> DevicePtr<T> for Span<'_, T> {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.at, SyncOnDrop::Record(None))
    }
}

impl<T> DevicePtrMut<T> for Span<'_, T> {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.at, SyncOnDrop::Record(None))
    }
}

//! candle's tensors as addresses in the GPU's memory, which kernels and libraries take.

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

/// A type of values in tensors on a GPU.
pub(super) trait Element: CudaDType + DeviceRepr + WithDType {}

impl<T: CudaDType + DeviceRepr + WithDType> Element for T {}

/// A type in which floats are uploaded. Any bits are a valid value.
pub(super) trait UploadType: Element + Copy + Send + Sync + 'static {
    /// Writes `from`, rounded to the nearest, to `to`.
    fn copy(from: &[f32], to: &mut [Self]);
}

impl UploadType for f32 {
    fn copy(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl UploadType for bf16 {
    fn copy(from: &[f32], to: &mut [Self]) {
        // Half the bytes on the bus, and as the kernels would round them.
        pulp::Arch::new().dispatch(|| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = Self::from_f32(*from);
            }
        });
    }
}

/// A type of activations and products.
pub(super) trait ActivationType: UploadType + CudnnDataType + ValidAsZeroBits
where
    CudaBlas: Gemm<Self>,
{
    /// Whether it has 16 bits: chooses the kernels.
    const HALF: bool;

    /// A factor of a product.
    fn from_f32(factor: f32) -> Self;
}

impl ActivationType for f32 {
    const HALF: bool = false;

    fn from_f32(factor: f32) -> Self {
        factor
    }
}

impl ActivationType for bf16 {
    const HALF: bool = true;

    fn from_f32(factor: f32) -> Self {
        Self::from_f32(factor)
    }
}

/// An array in the GPU's memory. Only operations on `stream` use it, so no other stream has to be waited for.
#[derive(Clone, Copy)]
pub(super) struct Span<'a, T> {
    pub(super) at: CUdeviceptr,
    pub(super) len: usize,
    stream: &'a Arc<CudaStream>,
    values: PhantomData<&'a T>,
}

impl<'a, T> Span<'a, T> {
    pub(super) fn from_slice(slice: &'a impl DevicePtr<T>, stream: &'a Arc<CudaStream>) -> Self {
        Self {
            at: slice.device_ptr(stream).0,
            len: slice.len(),
            stream,
            values: PhantomData,
        }
    }

    /// The first `len` values.
    pub(super) fn first(self, len: usize) -> Self {
        debug_assert!(len <= self.len);
        Self { len, ..self }
    }
}

impl<'a, T: CudaDType> Span<'a, T> {
    /// The values of `tensor`. An error if it is not contiguous or of another type.
    pub(super) fn from_tensor(tensor: &'a Tensor, stream: &'a Arc<CudaStream>) -> Result<Self> {
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

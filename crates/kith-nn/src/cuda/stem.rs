//! The stem on a GPU. Its pixels and weights are folded so that its convolution has channels enough for cuDNN's fast kernels.

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};

use super::arrays::ActivationType;
use super::gpu::Gpu;
use super::launch::Arg;
use super::shape::{FOLDED_CHANNELS, FOLDED_ROWS, FOLDED_WEIGHTS};
use crate::backend::{Pixels, PixelsAhead};
use crate::kernels::Conv;

impl<T: ActivationType> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// Folds the stem's weights from the layout of [`Layer`](crate::layer::Layer), or unfolds them.
    pub(super) fn fold(&self, kernel: &str, conv: &Conv, [from, to]: [Arg; 2]) -> Result<()> {
        let count = conv.outputs * FOLDED_WEIGHTS;
        let [outputs, rows] = [conv.outputs, FOLDED_ROWS].map(|size| Arg::Int(size as i32));
        let args = [from, to, outputs, rows, Arg::Size(count as u64)];
        self.ctx.each(kernel, count, &args)
    }

    /// `pixels` on the GPU, as the stem reads them.
    pub(super) fn stem_input_of(
        &self,
        pixels: Pixels<'_>,
        ahead: Option<PixelsAhead>,
    ) -> Result<Tensor> {
        let uploaded = self.ctx.build::<T>(&pixels.shape, |target| {
            self.ctx.fill_pixels(pixels, ahead, target)
        })?;
        self.stem_input(&uploaded)
    }

    /// Pixels `[batch, side, side, 3]` as the stem reads them: with 2 × 2 of them and four rows of these in the channels, `[batch, half, half + 3,
    /// 64]`, where `half` is the side of the stem's output.
    pub(super) fn stem_input(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, side, _, _) = pixels.dims4()?;
        let pixels = self.activations(pixels)?;
        let half = side.div_ceil(2);
        let shape = (batch, half, half + 3, FOLDED_CHANNELS);
        self.ctx.build::<T>(shape, |out| {
            let sizes = [side, half, half].map(|size| Arg::Int(size as i32));
            let args = [pixels.into(), out.into(), sizes[0], sizes[1], sizes[2]];
            let grid = ((batch * half) as u32, (half + 3).div_ceil(64) as u32);
            let block = (32, FOLDED_ROWS as u32);
            self.ctx.launch("fold_pixels", grid, block, &args)
        })
    }
}

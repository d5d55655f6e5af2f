//! Fully connected layers by cuBLAS.
//!
//! Activations are `[rows, channels]`, weights `[inputs, outputs]`. cuBLAS is column-major, so it sees each of them transposed.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{
    self, CUBLAS_OP_N as PLAIN, CUBLAS_OP_T as TRANSPOSED,
};
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::arrays::{ActivationType, Span};
use crate::kernels::Conv;

/// cuBLAS on one stream, for products of `T`.
pub(super) struct Products<T> {
    /// A handle serves one thread at a time.
    blas: Mutex<CudaBlas>,
    values: PhantomData<fn() -> T>,
}

/// A factor as cuBLAS sees it: whether it is transposed, and the length of its columns in memory.
type Factor = (cublasOperation_t, usize);

impl<T: ActivationType> Products<T>
where
    CudaBlas: Gemm<T>,
{
    /// cuBLAS on `stream`. The error says why it does not start.
    pub(super) fn new(stream: Arc<CudaStream>) -> std::result::Result<Self, String> {
        let blas =
            CudaBlas::new(stream).map_err(|error| format!("cuBLAS does not start: {error}"))?;
        Ok(Self {
            blas: Mutex::new(blas),
            values: PhantomData,
        })
    }

    /// `out = x · weight`.
    pub(super) fn forward(
        &self,
        conv: &Conv,
        rows: usize,
        [x, weight, out]: [Span<'_, T>; 3],
    ) -> Result<()> {
        let Conv {
            inputs, outputs, ..
        } = *conv;
        let factors = [(PLAIN, outputs), (PLAIN, inputs)];
        self.multiply([outputs, rows, inputs], factors, [weight, x, out], false)
    }

    /// `out = x · weightᵀ`, for weights `[outputs, inputs]` as cuDNN reads them.
    pub(super) fn forward_transposed(
        &self,
        conv: &Conv,
        rows: usize,
        [x, weight, out]: [Span<'_, T>; 3],
    ) -> Result<()> {
        let Conv {
            inputs, outputs, ..
        } = *conv;
        let factors = [(TRANSPOSED, inputs), (PLAIN, inputs)];
        self.multiply([outputs, rows, inputs], factors, [weight, x, out], false)
    }

    /// `dx = dy · weightᵀ`, added to what is there if `add`.
    pub(super) fn input(
        &self,
        conv: &Conv,
        rows: usize,
        [dx, weight, dy]: [Span<'_, T>; 3],
        add: bool,
    ) -> Result<()> {
        let Conv {
            inputs, outputs, ..
        } = *conv;
        let factors = [(TRANSPOSED, outputs), (PLAIN, outputs)];
        self.multiply([inputs, rows, outputs], factors, [weight, dy, dx], add)
    }

    /// `dw = xᵀ · dy`.
    pub(super) fn weights(
        &self,
        conv: &Conv,
        rows: usize,
        [x, dy, dw]: [Span<'_, T>; 3],
    ) -> Result<()> {
        let Conv {
            inputs, outputs, ..
        } = *conv;
        let factors = [(PLAIN, outputs), (TRANSPOSED, inputs)];
        self.multiply([outputs, inputs, rows], factors, [dy, x, dw], false)
    }

    /// `c[m, n] = a[m, k] · b[k, n]`, all column-major.
    fn multiply(
        &self,
        [m, n, k]: [usize; 3],
        [(transa, lda), (transb, ldb)]: [Factor; 2],
        [a, b, mut c]: [Span<'_, T>; 3],
        add: bool,
    ) -> Result<()> {
        let config = GemmConfig {
            transa,
            transb,
            m: m as i32,
            n: n as i32,
            k: k as i32,
            alpha: T::from_f32(1.0),
            lda: lda as i32,
            ldb: ldb as i32,
            beta: T::from_f32(f32::from(u8::from(add))),
            ldc: m as i32,
        };
        let blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the callers' spans hold as many values as the sizes say.
        unsafe { blas.gemm(config, &a, &b, &mut c) }
            .map_err(|error| candle_core::Error::Msg(format!("cuBLAS: {error}")))
    }
}

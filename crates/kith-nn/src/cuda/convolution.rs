//! Convolutions by cuDNN. Descriptors and algorithms are chosen once for each shape.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::cudnn::{
    ActivationDescriptor, ConvBackwardData, ConvBackwardFilter, ConvBiasActivationForward,
    ConvDescriptor, ConvForward, Cudnn, CudnnError, FilterDescriptor, TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{Result, Tensor};

use super::arrays::{ActivationType, Span};
use super::shape::Shape;
use super::stream_context::CudaStreamContext;

/// Maximum number of plans: more than the batch sizes of a server times the layers of a network. When there are as many, all are dropped.
const MAX_PLANS: usize = 16_384;

/// An algorithm with the bytes of its working memory.
#[derive(Clone, Copy)]
struct Choice<A> {
    algorithm: A,
    bytes: usize,
}

/// The descriptors and algorithms of one shape.
struct Plan<T> {
    x: TensorDescriptor<T>,
    y: TensorDescriptor<T>,
    bias: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    conv: ConvDescriptor<f32>,
    /// The identity, and ReLU.
    activations: [ActivationDescriptor<f32>; 2],
    /// The algorithms, chosen when first needed.
    forward: Option<Choice<sys::cudnnConvolutionFwdAlgo_t>>,
    data: Option<Choice<sys::cudnnConvolutionBwdDataAlgo_t>>,
    weights: Option<Choice<sys::cudnnConvolutionBwdFilterAlgo_t>>,
    /// Whether cuDNN has a kernel with an epilogue (bias, residual) for this shape, without ReLU and with it. True until it refuses.
    fuses: [bool; 2],
}

/// cuDNN on one stream.
pub(super) struct Convolutions<T> {
    /// A handle serves one thread at a time.
    inner: Mutex<Inner<T>>,
    max_bytes: usize,
    math: sys::cudnnMathType_t,
}

struct Inner<T> {
    cudnn: Arc<Cudnn>,
    plans: HashMap<Shape, Plan<T>>,
    work: Workspace,
}

/// Working memory that convolutions use in turn, as large as the largest request. Allocating it anew takes longer than a small convolution.
#[derive(Default)]
struct Workspace(Option<Tensor>);

impl Workspace {
    fn get<'a>(
        &'a mut self,
        ctx: &'a CudaStreamContext,
        bytes: usize,
    ) -> Result<Option<Span<'a, u8>>> {
        if bytes > self.0.as_ref().map_or(0, Tensor::elem_count) {
            self.0 = None;
            self.0 = Some(ctx.scratch::<u8>(bytes)?);
        }
        let memory = self.0.as_ref().filter(|_| bytes > 0);
        memory.map(|memory| ctx.span(memory)).transpose()
    }
}

// SAFETY: cuDNN allows a handle and its descriptors to be used by several threads one after the other, and the mutex sees to that.
unsafe impl<T> Send for Inner<T> {}

/// The epilogue of a forward convolution.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a, T> {
    pub(super) bias: Span<'a, T>,
    pub(super) residual: Option<Span<'a, T>>,
    pub(super) relu: bool,
}

impl<T: ActivationType> Convolutions<T>
where
    CudaBlas: Gemm<T>,
{
    /// cuDNN on `stream`. With `exact`, factors of 32 bits are not rounded.
    pub(super) fn new(
        stream: Arc<CudaStream>,
        max_bytes: usize,
        exact: bool,
    ) -> std::result::Result<Self, String> {
        let cudnn = Cudnn::new(stream)
            .map_err(|error| format!("cuDNN 9 does not start: {error} (are its libraries, libcudnn*.so.9, where the system looks for them?)"))?;
        let math = match (T::HALF, exact) {
            (true, _) => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            (false, false) => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            (false, true) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        let inner = Inner {
            cudnn,
            plans: HashMap::new(),
            work: Workspace::default(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            max_bytes,
            math,
        })
    }

    /// Frees the shared working memory. A captured graph must not use memory that later convolutions share.
    pub(super) fn drop_workspace(&self) {
        self.lock().work = Workspace::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A panic leaves no plan half made.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes `out = conv(x, filter)`. If cuDNN has a kernel for it, applies `epilogue` in the same pass. Returns whether it did.
    pub(super) fn forward(
        &self,
        ctx: &CudaStreamContext,
        shape: Shape,
        [x, filter, mut out]: [Span<'_, T>; 3],
        Epilogue {
            bias,
            residual,
            relu,
        }: Epilogue<'_, T>,
    ) -> Result<bool> {
        use sys::cudnnConvolutionFwdAlgo_t::*;
        ctx.stream.context().bind_to_thread().map_err(failed)?;
        let mut inner = self.lock();
        let Inner { cudnn, plans, work } = &mut *inner;
        let plan = self.plan((cudnn, plans), shape)?;
        let plain = ConvForward {
            conv: &plan.conv,
            x: &plan.x,
            w: &plan.filter,
            y: &plan.y,
        };
        let candidates = || {
            Ok(vec![
                plain.pick_algorithm()?,
                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
            ])
        };
        let size = |algorithm| plain.get_workspace_size(algorithm);
        let Choice { algorithm, bytes } = self.choose(&mut plan.forward, candidates, size)?;
        let mut work = work.get(ctx, bytes)?;
        let (one, zero) = (T::from_f32(1.0), T::from_f32(0.0));
        // cuDNN knows the identity as an activation with this algorithm only.
        let may_fuse = relu || algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        if may_fuse && plan.fuses[usize::from(relu)] {
            let fused = ConvBiasActivationForward {
                conv: &plan.conv,
                act: &plan.activations[usize::from(relu)],
                x: &plan.x,
                w: &plan.filter,
                z: &plan.y,
                bias: &plan.bias,
                y: &plan.y,
            };
            // With a factor of 0 the residual is not read: any address will do.
            let (z, factor) = residual.map_or((x, zero), |residual| (residual, one));
            // SAFETY: the spans have the sizes of the descriptors, which come from the same shape.
            let done = unsafe {
                let factors = (one, factor);
                fused.launch(
                    algorithm,
                    work.as_mut(),
                    factors,
                    &x,
                    &filter,
                    &z,
                    &bias,
                    &mut out,
                )
            };
            match done {
                Ok(()) => return Ok(true),
                Err(error) => {
                    tracing::debug!(?shape, %error, "cuDNN has no kernel with an epilogue for this shape");
                    plan.fuses[usize::from(relu)] = false;
                }
            }
        }
        let factors = (one, zero);
        // SAFETY: as above.
        unsafe { plain.launch(algorithm, work.as_mut(), factors, &x, &filter, &mut out) }
            .map_err(failed)?;
        Ok(false)
    }

    /// The gradient with respect to the input from that of the output; added to what `dx` holds if `add`.
    pub(super) fn backward_data(
        &self,
        ctx: &CudaStreamContext,
        shape: Shape,
        [mut dx, filter, dy]: [Span<'_, T>; 3],
        add: bool,
    ) -> Result<()> {
        ctx.stream.context().bind_to_thread().map_err(failed)?;
        let mut inner = self.lock();
        let Inner { cudnn, plans, work } = &mut *inner;
        let plan = self.plan((cudnn, plans), shape)?;
        let conv = ConvBackwardData {
            conv: &plan.conv,
            dx: &plan.x,
            w: &plan.filter,
            dy: &plan.y,
        };
        let candidates = || {
            use sys::cudnnConvolutionBwdDataAlgo_t::*;
            let picked = conv.pick_algorithm()?;
            let mut candidates = vec![picked, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1];
            // It does not repeat its results bit for bit.
            candidates.retain(|algorithm| *algorithm != CUDNN_CONVOLUTION_BWD_DATA_ALGO_0);
            Ok(candidates)
        };
        let size = |algorithm| conv.get_workspace_size(algorithm);
        let Choice { algorithm, bytes } = self.choose(&mut plan.data, candidates, size)?;
        let mut work = work.get(ctx, bytes)?;
        let factors = (T::from_f32(1.0), T::from_f32(f32::from(u8::from(add))));
        // SAFETY: the spans have the sizes of the descriptors, which come from the same shape.
        unsafe { conv.launch(algorithm, work.as_mut(), factors, &mut dx, &filter, &dy) }
            .map_err(failed)
    }

    /// The gradient with respect to the weights, `[outputs, kernel, kernel, inputs]`.
    pub(super) fn backward_weights(
        &self,
        ctx: &CudaStreamContext,
        shape: Shape,
        [x, mut dw, dy]: [Span<'_, T>; 3],
    ) -> Result<()> {
        ctx.stream.context().bind_to_thread().map_err(failed)?;
        let mut inner = self.lock();
        let Inner { cudnn, plans, work } = &mut *inner;
        let plan = self.plan((cudnn, plans), shape)?;
        let conv = ConvBackwardFilter {
            conv: &plan.conv,
            x: &plan.x,
            dw: &plan.filter,
            dy: &plan.y,
        };
        let candidates = || {
            use sys::cudnnConvolutionBwdFilterAlgo_t::*;
            let picked = conv.pick_algorithm()?;
            let mut candidates = vec![picked, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1];
            // These two do not repeat their results bit for bit.
            candidates.retain(|algorithm| {
                *algorithm != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0
                    && *algorithm != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3
            });
            Ok(candidates)
        };
        let size = |algorithm| conv.get_workspace_size(algorithm);
        let Choice { algorithm, bytes } = self.choose(&mut plan.weights, candidates, size)?;
        let mut work = work.get(ctx, bytes)?;
        let factors = (T::from_f32(1.0), T::from_f32(0.0));
        // SAFETY: the spans have the sizes of the descriptors, which come from the same shape.
        unsafe { conv.launch(algorithm, work.as_mut(), factors, &x, &mut dw, &dy) }.map_err(failed)
    }

    /// The algorithm in `chosen`, or else the first candidate whose working memory is within the bound. All candidates must repeat their results bit
    /// for bit.
    fn choose<A: Copy>(
        &self,
        chosen: &mut Option<Choice<A>>,
        candidates: impl FnOnce() -> std::result::Result<Vec<A>, CudnnError>,
        size: impl Fn(A) -> std::result::Result<usize, CudnnError>,
    ) -> Result<Choice<A>> {
        if let Some(choice) = *chosen {
            return Ok(choice);
        }
        let mut refused = None;
        for algorithm in candidates().map_err(failed)? {
            match size(algorithm) {
                Ok(bytes) if bytes <= self.max_bytes => {
                    let choice = Choice { algorithm, bytes };
                    *chosen = Some(choice);
                    return Ok(choice);
                }
                Ok(bytes) => {
                    refused = Some(format!(
                        "it would take {bytes} bytes of working memory: raise cuda.workspace_mb"
                    ))
                }
                Err(error) => refused = Some(error.to_string()),
            }
        }
        let why = refused.unwrap_or_default();
        Err(candle_core::Error::Msg(format!(
            "no algorithm for a convolution: {why}"
        )))
    }

    /// The plan of `shape`, made when first needed.
    fn plan<'a>(
        &self,
        (cudnn, plans): (&Arc<Cudnn>, &'a mut HashMap<Shape, Plan<T>>),
        shape: Shape,
    ) -> Result<&'a mut Plan<T>> {
        if !plans.contains_key(&shape) {
            if plans.len() >= MAX_PLANS {
                plans.clear();
            }
            let plan = self.describe(cudnn, shape).map_err(failed)?;
            plans.insert(shape, plan);
        }
        let plan = plans.get_mut(&shape);
        plan.ok_or_else(|| candle_core::Error::Msg("a plan went missing".to_owned()))
    }

    /// The descriptors of `shape`. No algorithm is chosen yet.
    fn describe(
        &self,
        cudnn: &Arc<Cudnn>,
        shape: Shape,
    ) -> std::result::Result<Plan<T>, CudnnError> {
        let Shape {
            batch,
            input,
            kernel: [height, width],
            channels: [inputs, outputs],
            ..
        } = shape;
        let last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let tensor = |images: usize, channels: usize, [height, width]: [usize; 2]| {
            let dims = [images, channels, height, width].map(|size| size as i32);
            cudnn.create_4d_tensor::<T>(last, dims)
        };
        let (pad, stride) = (shape.pad as i32, shape.stride as i32);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut description = cudnn.create_conv2d::<f32>([pad; 2], [stride; 2], [1; 2], mode)?;
        description.set_math_type(self.math)?;
        let taps = [outputs, inputs, height, width];
        let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
        let activation = |mode| cudnn.create_activation::<f32>(mode, nan, 0.0);
        Ok(Plan {
            x: tensor(batch, inputs, input)?,
            y: tensor(batch, outputs, shape.output())?,
            bias: tensor(1, outputs, [1; 2])?,
            filter: cudnn.create_4d_filter::<T>(last, taps.map(|size| size as i32))?,
            conv: description,
            activations: [
                activation(sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY)?,
                activation(sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU)?,
            ],
            forward: None,
            data: None,
            weights: None,
            fuses: [true; 2],
        })
    }
}

fn failed(error: impl std::fmt::Display) -> candle_core::Error {
    candle_core::Error::Msg(format!("cuDNN: {error}"))
}

//! Training passes, captured as two CUDA graphs (forward and backward) for each number of rows and size of images.
//!
//! The saved activations and the gradients outlive the graphs' launches. So all arrays of a captured step keep their addresses as long as it
//! lives. While a tape or its gradients are in use, other passes of as many rows run without a graph.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::CudaGraph;

use super::arrays::ActivationType;
use super::buffer_pool::GraphBufferPool;
use super::captured::{BackwardState, CapturedGraphs, CapturedStep, StepLease};
use super::gpu::Gpu;
use super::graph_table::Entry;
use crate::backend::{
    BackwardPass, GraphCache, GraphLease, LayerGradient, Pixels, PixelsAhead, TrainingForward,
    TrainingPass,
};

/// Rows are a multiple of this: carried negatives change the number of images from step to step.
const ROWS: usize = 32;
/// Maximum pixels of a batch that is captured, some 1,800 images of 96 px. Even then the CPU needs longer to queue a backward pass than the GPU
/// needs to run it, because cuDNN looks its kernels up at each call.
const MAX_PIXELS: usize = 1 << 24;
/// Maximum number of graphs of one encoder, and of pixels of all of them together, since each keeps its activations. When there are as many, all
/// are dropped.
const MAX_SIZES: usize = 8;
const MAX_PIXELS_OF_ALL: usize = 1 << 25;

/// Number of rows in which a batch is computed, captured or not, so that a resumed run computes as an uninterrupted one does.
///
/// From 256 images on it is at most an eighth more than there are images, and one of at most eight numbers up to the next power of two. For each
/// new number the algorithms are chosen anew, which takes longer than a step.
pub(super) fn rows(batch: usize) -> usize {
    batch.next_multiple_of(ROWS.max(batch.next_power_of_two() / 16))
}

/// Notes in `graphs` that a pass of `rows` images of `side` has run without a graph.
pub(super) fn note_seen(graphs: &GraphCache, rows: usize, side: usize) {
    let pixels = rows * side * side;
    if pixels <= MAX_PIXELS {
        let max_sizes = (MAX_PIXELS_OF_ALL / pixels).min(MAX_SIZES);
        graphs.with(|all: &mut CapturedGraphs| all.training.note_seen((rows, side), max_sizes));
    }
}

impl<T: ActivationType> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// The result of a captured forward pass. `None` if the pass is to run without a graph, or the arrays are in use.
    pub(super) fn launch_forward(
        &self,
        graphs: &GraphCache,
        (pixels, ahead): (Pixels<'_>, &mut Option<PixelsAhead>),
        pass: TrainingPass<'_>,
    ) -> Option<TrainingForward> {
        let [rows, side, ..] = pixels.shape;
        if rows * side * side > MAX_PIXELS {
            return None;
        }
        let size = (rows, side);
        let put = |entry| graphs.with(|all: &mut CapturedGraphs| all.training.put(size, entry));
        let step = match graphs.with(|all: &mut CapturedGraphs| all.training.take(size))? {
            None => self.capture_step(pixels.shape, pass).map(Arc::new),
            Some(step) => Ok(step),
        };
        let forward = step.and_then(|step| {
            put(Entry::Captured(step.clone()));
            let lease = StepLease::acquire(&step);
            lease
                .map(|lease| self.run_forward(lease, pixels, ahead.take()))
                .transpose()
        });
        forward.unwrap_or_else(|error| {
            tracing::debug!(rows, %error, "a training pass cannot be captured as a CUDA graph");
            put(Entry::Rejected);
            self.ctx.clear_failed_capture();
            None
        })
    }

    fn run_forward(
        &self,
        lease: StepLease,
        pixels: Pixels<'_>,
        ahead: Option<PixelsAhead>,
    ) -> Result<TrainingForward> {
        let step = &lease.0;
        let target = self.activations(&step.pixels)?;
        self.ctx.fill_pixels(pixels, ahead, target)?;
        // SAFETY: the step keeps the arrays that it reads and writes, weights change in place, and there is one lease at a time.
        unsafe { self.ctx.launch_graph(&step.forward) }?;
        self.ctx.stream.synchronize().w()?;
        Ok(TrainingForward {
            saved: step.saved.clone(),
            embedding: step.embedding.as_slice().w()?.to_vec(),
            lease: Some(Arc::new(lease)),
        })
    }

    /// The gradients of a captured backward pass. `None` if it cannot be captured.
    pub(super) fn launch_backward(
        &self,
        lease: &GraphLease,
        gradient: &[f32],
        pass: BackwardPass<'_>,
    ) -> Option<Result<Vec<LayerGradient>>> {
        let StepLease(step) = lease.downcast_ref()?;
        let mut state = step.backward.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.graph, Entry::SeenOnce) {
            state.graph = match self.capture_backward(step, &mut state.pool, pass) {
                Ok(captured) => Entry::Captured(captured),
                Err(error) => {
                    tracing::debug!(%error, "a backward pass cannot be captured as a CUDA graph");
                    self.ctx.clear_failed_capture();
                    Entry::Rejected
                }
            };
        }
        let Entry::Captured((graph, gradients)) = &state.graph else {
            return None;
        };
        let run = || {
            self.ctx
                .upload_to(&[gradient], self.floats(&step.gradient)?)?;
            // SAFETY: as for the forward pass, which has run before.
            unsafe { self.ctx.launch_graph(graph) }?;
            Ok(gradients.clone())
        };
        Some(run())
    }

    fn capture_step(&self, shape: [usize; 4], pass: TrainingPass<'_>) -> Result<CapturedStep> {
        let pixels = self.ctx.build::<T>(&shape, |_| Ok(()))?;
        self.ctx.stream.synchronize().w()?;
        let mut pool = GraphBufferPool::default();
        self.with_capturer(|gpu| {
            // Once without capture: it chooses algorithms and loads kernels, which is not allowed during a capture.
            let once = pass(gpu, gpu.stem_input(&pixels)?);
            gpu.convolutions.drop_workspace();
            let (_, embedding) = once?;
            let (count, dims) = (embedding.elem_count(), embedding.shape().clone());
            drop(embedding);
            gpu.ctx.stream.synchronize().w()?;

            let mut output = gpu.ctx.pinned(count)?;
            let mut saved = None;
            let forward = gpu.capture_with_pool(&mut pool, || {
                let (activations, embedding) = pass(gpu, gpu.stem_input(&pixels)?)?;
                saved = Some(activations);
                gpu.ctx.fetch(gpu.floats(&embedding)?, &mut output)
            })?;
            let Some(saved) = saved else {
                candle_core::bail!("the forward pass saved no activations")
            };
            Ok((forward, output, saved, dims))
        })
        .and_then(|(forward, embedding, saved, dims)| {
            Ok(CapturedStep {
                pixels,
                gradient: self.ctx.build::<f32>(dims, |_| Ok(()))?,
                forward,
                embedding,
                saved,
                backward: Mutex::new(BackwardState {
                    graph: Entry::SeenOnce,
                    pool,
                }),
                leased: AtomicBool::new(false),
            })
        })
    }

    fn capture_backward(
        &self,
        step: &CapturedStep,
        pool: &mut GraphBufferPool,
        pass: BackwardPass<'_>,
    ) -> Result<(CudaGraph, Vec<LayerGradient>)> {
        self.ctx.stream.synchronize().w()?;
        self.with_capturer(|gpu| {
            let backward = || pass(gpu, step.gradient.clone(), step.saved.clone());
            let once = backward();
            gpu.convolutions.drop_workspace();
            drop(once?);
            gpu.ctx.stream.synchronize().w()?;

            let mut gradients = Vec::new();
            let graph = gpu.capture_with_pool(pool, || {
                gradients = backward()?;
                Ok(())
            })?;
            Ok((graph, gradients))
        })
    }

    /// Captures the operations that `queue` queues. Their arrays are taken from `pool` and stay in it.
    fn capture_with_pool(
        &self,
        pool: &mut GraphBufferPool,
        queue: impl FnOnce() -> Result<()>,
    ) -> Result<CudaGraph> {
        self.ctx.set_pool(Some(std::mem::take(pool)));
        let graph = self.ctx.capture(|| {
            let queued = queue();
            self.convolutions.drop_workspace();
            queued
        });
        *pool = self.ctx.set_pool(None).unwrap_or_default();
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn there_are_few_numbers_of_rows() {
        let found = [1, 32, 33, 128, 257, 505, 513, 1011].map(rows);
        assert_eq!(found, [32, 32, 64, 128, 288, 512, 576, 1024]);
        assert!((256..4096).all(|batch| rows(batch) - batch < batch / 8));
    }
}

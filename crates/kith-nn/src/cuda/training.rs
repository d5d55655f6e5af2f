//! Training passes, recorded once for each number of rows (two CUDA graphs, forward and backward) and then repeated by one call each. Their
//! arrays lie on fixed places as long as the recording lives, since what the forward pass keeps and the gradients outlast it; while a
//! tape or its gradients are in use, other passes of as many rows are queued as before. Must never know: the network's shape.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, PinnedHostSlice};
use candle_core::{Result, Tensor};

use super::arrays::Value;
use super::gpu::Gpu;
use super::memory::Shelf;
use super::recording::{Entry, Recordings};
use crate::backend::{BackwardPass, Kept, LayerGradient, Lease, Memo, Pixels, TapePass, Taped};

/// Numbers of rows are multiples of this at least: carried negatives change them from step to step.
const ROWS: usize = 32;
/// Most pixels of a batch that is recorded, some 1,800 images of 96 px. Queueing a backward pass takes the CPU longer than running it takes
/// the GPU even then, as cuDNN looks its kernels up at each call.
const MOST_PIXELS: usize = 1 << 24;
/// Recordings that are kept of one encoder, and pixels of all of them together, as each keeps its maps; when there are as many, all are
/// forgotten.
const MOST: usize = 8;
const MOST_PIXELS_KEPT: usize = 1 << 25;

/// Rows in which a batch is computed, recorded or not: a run that goes on after a restart then computes as if it had not been interrupted.
/// At most an eighth more than there are images from 256 on, and of at most eight numbers up to the next power of two: each new one has its
/// algorithms chosen, which takes longer than a step.
pub(super) fn rows(batch: usize) -> usize {
    batch.next_multiple_of(ROWS.max(batch.next_power_of_two() / 16))
}

/// A forward and a backward pass on fixed places.
pub(super) struct Step {
    /// `[rows, side, side, 3]`, as uploaded.
    pixels: Tensor,
    /// Of the embeddings.
    gradient: Tensor,
    forward: CudaGraph,
    embedding: PinnedHostSlice<f32>,
    kept: Kept,
    rest: Mutex<Rest>,
    lent: AtomicBool,
}

/// What the backward pass adds.
struct Rest {
    backward: Entry<(CudaGraph, Vec<LayerGradient>)>,
    /// All arrays of both passes.
    shelf: Shelf,
}

// SAFETY: a graph may be used by several threads one after the other: both are run by whoever has the loan, the backward one under its
// mutex as well. All else is plain memory.
unsafe impl Send for Step {}
unsafe impl Sync for Step {}

/// The right to a step's arrays.
struct Loan(Arc<Step>);

impl Loan {
    fn of(step: &Arc<Step>) -> Option<Self> {
        let free = !step.lent.swap(true, Ordering::AcqRel);
        free.then(|| Self(step.clone()))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.lent.store(false, Ordering::Release);
    }
}

/// Notes in `memo` that a pass of `rows` images of `side` has ended.
pub(super) fn saw(memo: &Memo, rows: usize, side: usize) {
    let pixels = rows * side * side;
    if pixels <= MOST_PIXELS {
        let most = (MOST_PIXELS_KEPT / pixels).min(MOST);
        memo.with(|all: &mut Recordings| all.training.saw(rows, most));
    }
}

impl<T: Value> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// A recorded forward pass; `None` if there is none for as many rows (yet), or its arrays are in use.
    pub(super) fn repeat_tape(
        &self,
        memo: &Memo,
        pixels: Pixels<'_>,
        pass: TapePass<'_>,
    ) -> Option<Taped> {
        let [rows, side, ..] = pixels.shape;
        if rows * side * side > MOST_PIXELS {
            return None;
        }
        let put = |entry| memo.with(|all: &mut Recordings| all.training.put(rows, entry));
        let step = match memo.with(|all: &mut Recordings| all.training.take(rows))? {
            None => self.record_step(pixels.shape, pass).map(Arc::new),
            Some(step) => Ok(step),
        };
        let taped = step.and_then(|step| {
            put(Entry::Kept(step.clone()));
            let loan = Loan::of(&step);
            loan.map(|loan| self.run_forward(loan, pixels)).transpose()
        });
        taped.unwrap_or_else(|error| {
            tracing::debug!(rows, %error, "a training pass is not recorded");
            put(Entry::Refused);
            self.lane.forget_recordings();
            None
        })
    }

    fn run_forward(&self, loan: Loan, pixels: Pixels<'_>) -> Result<Taped> {
        let step = &loan.0;
        self.lane.upload_to(pixels.parts, self.map(&step.pixels)?)?;
        // SAFETY: what it reads and writes is kept by the step, weights change in place, and there is one loan at a time.
        unsafe { self.lane.run(&step.forward) }?;
        self.lane.stream.synchronize().w()?;
        Ok(Taped {
            kept: step.kept.clone(),
            embedding: step.embedding.as_slice().w()?.to_vec(),
            lease: Some(Arc::new(loan)),
        })
    }

    /// The gradients of a recorded backward pass; `None` if it cannot be recorded.
    pub(super) fn repeat_backward(
        &self,
        lease: &Lease,
        gradient: &[f32],
        pass: BackwardPass<'_>,
    ) -> Option<Result<Vec<LayerGradient>>> {
        let Loan(step) = lease.downcast_ref()?;
        let mut rest = step.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(rest.backward, Entry::Seen) {
            rest.backward = match self.record_backward(step, &mut rest.shelf, pass) {
                Ok(recorded) => Entry::Kept(recorded),
                Err(error) => {
                    tracing::debug!(%error, "a backward pass is not recorded");
                    self.lane.forget_recordings();
                    Entry::Refused
                }
            };
        }
        let Entry::Kept((graph, gradients)) = &rest.backward else {
            return None;
        };
        let run = || {
            self.lane
                .upload_to(&[gradient], self.floats(&step.gradient)?)?;
            // SAFETY: as for the forward pass, which has run before.
            unsafe { self.lane.run(graph) }?;
            Ok(gradients.clone())
        };
        Some(run())
    }

    fn record_step(&self, shape: [usize; 4], pass: TapePass<'_>) -> Result<Step> {
        let pixels = self.lane.build::<T>(&shape, |_| Ok(()))?;
        self.lane.stream.synchronize().w()?;
        let mut shelf = Shelf::default();
        self.with_recorder(|on| {
            // Once without recording: it chooses algorithms and loads kernels, which must not happen within one.
            let once = pass(on, on.padded(&pixels)?);
            on.convolutions.forget_workspace();
            let (_, embedding) = once?;
            let (count, dims) = (embedding.elem_count(), embedding.shape().clone());
            drop(embedding);
            on.lane.stream.synchronize().w()?;

            let mut output = on.lane.pinned(count)?;
            let mut kept = None;
            let forward = on.recording_on(&mut shelf, || {
                let (what, embedding) = pass(on, on.padded(&pixels)?)?;
                kept = Some(what);
                on.lane.fetch(on.floats(&embedding)?, &mut output)
            })?;
            let Some(kept) = kept else {
                candle_core::bail!("nothing is kept")
            };
            Ok((forward, output, kept, dims))
        })
        .and_then(|(forward, embedding, kept, dims)| {
            Ok(Step {
                pixels,
                gradient: self.lane.build::<f32>(dims, |_| Ok(()))?,
                forward,
                embedding,
                kept,
                rest: Mutex::new(Rest {
                    backward: Entry::Seen,
                    shelf,
                }),
                lent: AtomicBool::new(false),
            })
        })
    }

    fn record_backward(
        &self,
        step: &Step,
        shelf: &mut Shelf,
        pass: BackwardPass<'_>,
    ) -> Result<(CudaGraph, Vec<LayerGradient>)> {
        self.lane.stream.synchronize().w()?;
        self.with_recorder(|on| {
            let backward = || pass(on, step.gradient.clone(), step.kept.clone());
            let once = backward();
            on.convolutions.forget_workspace();
            drop(once?);
            on.lane.stream.synchronize().w()?;

            let mut gradients = Vec::new();
            let graph = on.recording_on(shelf, || {
                gradients = backward()?;
                Ok(())
            })?;
            Ok((graph, gradients))
        })
    }

    /// Records what `queue` queues, on arrays that are kept on `shelf`.
    fn recording_on(
        &self,
        shelf: &mut Shelf,
        queue: impl FnOnce() -> Result<()>,
    ) -> Result<CudaGraph> {
        self.lane.keep_on(Some(std::mem::take(shelf)));
        let graph = self.lane.record(|| {
            let queued = queue();
            self.convolutions.forget_workspace();
            queued
        });
        *shelf = self.lane.keep_on(None).unwrap_or_default();
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn few_numbers_of_rows_occur() {
        let found = [1, 32, 33, 128, 257, 505, 513, 1011].map(rows);
        assert_eq!(found, [32, 32, 64, 128, 288, 512, 576, 1024]);
        assert!((256..4096).all(|batch| rows(batch) - batch < batch / 8));
    }
}

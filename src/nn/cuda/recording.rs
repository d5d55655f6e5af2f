//! Passes that only encode, recorded once for each batch size (a CUDA graph) and then repeated by one call: for small batches, queueing
//! kernel after kernel takes the CPU longer than the GPU needs to run them. Must never know: the network's shape.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, PinnedHostSlice};
use candle_core::{Result, Tensor};

use super::arrays::Value;
use super::gpu::Gpu;
use super::training::Step;
use crate::nn::backend::{Memo, Pass, Pixels};

/// Batch sizes that are kept of one encoder; when there are as many, all are forgotten.
const MOST: usize = 256;

/// Most pixels of a batch that is recorded, some 450 images of 96 px or 80 of 224: a larger one keeps the GPU longer than the CPU, and its
/// recording would only take memory a second time.
const MOST_PIXELS: usize = 1 << 22;

/// What is known, by batch size. A recording that runs is not in it.
pub(super) struct Entries<R>(HashMap<usize, Entry<R>>);

impl<R> Default for Entries<R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// All that is kept with an encoder; a memo holds one or the other.
#[derive(Default)]
pub(super) struct Recordings {
    encoding: Entries<Recording>,
    pub(super) training: Entries<Arc<Step>>,
}

/// What is known of one size.
pub(super) enum Entry<R> {
    /// It ran once: a batch size that comes a second time is worth recording.
    Seen,
    /// It cannot be recorded.
    Refused,
    Kept(R),
}

/// A pass on fixed places. All else it needs is taken and given back within it.
struct Recording {
    graph: CudaGraph,
    /// `[batch · side · side · 3]`, as uploaded.
    pixels: Tensor,
    outputs: [PinnedHostSlice<f32>; 2],
}

// SAFETY: a graph may be used by several threads one after the other: who runs it has taken it out of the memo.
unsafe impl Send for Recording {}

impl<R> Entries<R> {
    /// The recording of `size`, to be put back, or `Some(None)` if it is to be made. `None`: not yet, or it cannot be.
    pub(super) fn take(&mut self, size: usize) -> Option<Option<R>> {
        match self.0.get(&size)? {
            Entry::Refused => None,
            Entry::Seen | Entry::Kept(_) => match self.0.remove(&size)? {
                Entry::Kept(recording) => Some(Some(recording)),
                Entry::Seen | Entry::Refused => Some(None),
            },
        }
    }

    /// A pass of `size` was queued and has ended: all that it has left with the encoder is there.
    pub(super) fn saw(&mut self, size: usize, most: usize) {
        if self.0.len() >= most {
            self.0.clear();
        }
        self.0.entry(size).or_insert(Entry::Seen);
    }

    pub(super) fn put(&mut self, size: usize, entry: Entry<R>) {
        self.0.insert(size, entry);
    }

    /// How many sizes are recorded.
    pub(super) fn recorded(&self) -> usize {
        let kept = |entry: &&Entry<R>| matches!(entry, Entry::Kept(_));
        self.0.values().filter(kept).count()
    }
}

/// Notes in `memo` that a pass of `batch` images has ended.
pub(super) fn saw(memo: &Memo, batch: usize) {
    memo.with(|all: &mut Recordings| all.encoding.saw(batch, MOST));
}

/// How many batch sizes are recorded in `memo`.
pub(super) fn recorded(memo: &Memo) -> usize {
    memo.with(|all: &mut Recordings| all.encoding.recorded() + all.training.recorded())
}

impl<T: Value> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// The outputs of a recorded pass; `None` if there is none for this batch size (yet).
    pub(super) fn repeat(
        &self,
        memo: &Memo,
        pixels: Pixels<'_>,
        pass: Pass<'_>,
    ) -> Option<[Vec<f32>; 2]> {
        let [batch, side, ..] = pixels.shape;
        if batch * side * side > MOST_PIXELS {
            return None;
        }
        let outputs = match memo.with(|all: &mut Recordings| all.encoding.take(batch))? {
            None => self.record(pixels.shape, pass),
            Some(recording) => Ok(recording),
        }
        .and_then(|recording| Ok((self.run(&recording, pixels)?, recording)));
        let (entry, outputs) = match outputs {
            Ok((outputs, recording)) => (Entry::Kept(recording), Some(outputs)),
            Err(error) => {
                tracing::debug!(batch, %error, "a pass is not recorded");
                self.lane.forget_recordings();
                (Entry::Refused, None)
            }
        };
        memo.with(|all: &mut Recordings| all.encoding.put(batch, entry));
        outputs
    }

    fn run(&self, recording: &Recording, pixels: Pixels<'_>) -> Result<[Vec<f32>; 2]> {
        let target = self.map(&recording.pixels)?;
        self.lane.upload_to(pixels.parts, target)?;
        // SAFETY: what it reads is kept by the recording and the encoder, and nothing else runs it.
        unsafe { self.lane.run(&recording.graph) }?;
        self.lane.stream.synchronize().w()?;
        // Its memory counts from its first run on.
        self.lane.check_bound()?;
        let [embedding, hidden] = &recording.outputs;
        Ok([
            embedding.as_slice().w()?.to_vec(),
            hidden.as_slice().w()?.to_vec(),
        ])
    }

    fn record(&self, shape: [usize; 4], pass: Pass<'_>) -> Result<Recording> {
        self.with_recorder(|on| self.record_on(on, shape, pass))
    }

    /// Records on a queue of its own, where no other thread queues anything meanwhile.
    pub(super) fn with_recorder<R>(&self, record: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let on = match &mut *recorder {
            Some(on) => on,
            none => none.insert(Box::new(self.beside().map_err(candle_core::Error::Msg)?)),
        };
        let recording = record(on);
        if recording.is_err() {
            // Whatever state it is in.
            *recorder = None;
        }
        recording
    }

    fn record_on(&self, on: &Self, shape: [usize; 4], pass: Pass<'_>) -> Result<Recording> {
        let pixels = self.lane.build::<T>(&shape, |_| Ok(()))?;
        self.lane.stream.synchronize().w()?;
        // Once without recording: it chooses algorithms and loads kernels, which must not happen within one.
        let once = pass(on, on.padded(&pixels)?);
        on.convolutions.forget_workspace();
        let lengths = once?.map(|tensor| tensor.elem_count());
        on.lane.stream.synchronize().w()?;

        let [embedding, hidden] = lengths.map(|length| on.lane.pinned(length));
        let mut outputs = [embedding?, hidden?];
        let graph = on.lane.record(|| {
            let queued = pass(on, on.padded(&pixels)?).and_then(|found| {
                for (tensor, output) in found.iter().zip(&mut outputs) {
                    let wide = on.widened(tensor)?;
                    on.lane.fetch(on.floats(&wide)?, output)?;
                }
                Ok(())
            });
            on.convolutions.forget_workspace();
            queued
        })?;
        Ok(Recording {
            graph,
            pixels,
            outputs,
        })
    }
}

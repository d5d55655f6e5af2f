//! Passes that only encode, recorded once for each batch size (a CUDA graph) and then repeated by one call: for small batches, queueing
//! kernel after kernel takes the CPU longer than the GPU needs to run them. Must never know: the network's shape.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::PoisonError;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, PinnedHostSlice};
use candle_core::{Result, Tensor};

use super::arrays::Value;
use super::gpu::Gpu;
use crate::nn::backend::{Memo, Pass, Pixels};

/// Batch sizes that are kept of one encoder; when there are as many, all are forgotten.
const MOST: usize = 256;

/// Most pixels of a batch that is recorded, some 450 images of 96 px or 80 of 224: a larger one keeps the GPU longer than the CPU, and its
/// recording would only take memory a second time.
const MOST_PIXELS: usize = 1 << 22;

/// What is kept of one encoder, by batch size.
#[derive(Default)]
struct Recordings(HashMap<usize, Entry<Box<Recording>>>);

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

// SAFETY: a graph may be used by several threads one after the other, and the memo's mutex sees to that.
unsafe impl Send for Recording {}

/// How many batch sizes are recorded in `memo`.
pub(super) fn recorded(memo: &Memo) -> usize {
    let kept = memo.lock();
    let kept = kept.as_ref().and_then(|kept| kept.downcast_ref());
    kept.map_or(0, |Recordings(entries)| {
        let kept = |entry: &&Entry<_>| matches!(entry, Entry::Kept(_));
        entries.values().filter(kept).count()
    })
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
        let mut kept = memo.lock();
        let kept = kept.get_or_insert_with(|| Box::<Recordings>::default());
        let Recordings(entries) = kept.downcast_mut()?;
        if entries.len() >= MOST {
            entries.clear();
        }
        let outputs = match entries.get(&batch) {
            None => {
                entries.insert(batch, Entry::Seen);
                return None;
            }
            Some(Entry::Refused) => return None,
            Some(Entry::Kept(recording)) => self.run(recording, pixels),
            Some(Entry::Seen) => self.record(pixels.shape, pass).and_then(|recording| {
                let outputs = self.run(&recording, pixels);
                entries.insert(batch, Entry::Kept(Box::new(recording)));
                outputs
            }),
        };
        match outputs {
            Ok(outputs) => Some(outputs),
            Err(error) => {
                tracing::debug!(batch, %error, "a pass is not recorded");
                entries.insert(batch, Entry::Refused);
                self.lane.forget_recordings();
                None
            }
        }
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

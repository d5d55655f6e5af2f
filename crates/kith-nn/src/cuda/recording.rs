//! Passes that only encode, recorded once for each batch size (a CUDA graph) and then repeated by one call: for small batches, queueing
//! kernel after kernel takes the CPU longer than the GPU needs to run them. Must never know: the network's shape.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaGraph, PinnedHostSlice};
use candle_core::{Result, Tensor};

use super::arrays::Value;
use super::gpu::Gpu;
use super::training::Step;
use crate::backend::{Memo, Pass, Pixels};

/// Batch sizes that are kept of one encoder; when there are as many, all are forgotten.
const MOST: usize = 256;

/// Most pixels of a batch that is recorded as one, less than twice those of a part.
const MOST_PIXELS: usize = 1 << 22;

/// Most pixels of a part of a larger batch, 128 images of 96 px or 32 of 224: the pixels of one part are uploaded while another is computed.
const PART_PIXELS: usize = MOST_PIXELS / 2;

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
    /// Two recordings of one size, which parts of a larger batch take in turn.
    parts: Entries<[Recording; 2]>,
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

impl Recording {
    /// What its last run, which has ended, has left.
    fn outputs(&self) -> Result<[Vec<f32>; 2]> {
        let [embedding, hidden] = &self.outputs;
        Ok([
            embedding.as_slice().w()?.to_vec(),
            hidden.as_slice().w()?.to_vec(),
        ])
    }
}

/// Some images of a batch, which lie in several places.
struct Part<'a> {
    parts: Vec<&'a [f32]>,
    shape: [usize; 4],
}

impl Part<'_> {
    fn pixels(&self) -> Pixels<'_> {
        Pixels {
            parts: &self.parts,
            shape: self.shape,
        }
    }
}

/// `pixels` in parts of `images`, the last of which may be smaller.
fn split(pixels: Pixels<'_>, images: usize) -> Vec<Part<'_>> {
    let [batch, height, width, channels] = pixels.shape;
    let mut rest = pixels.parts.iter().copied();
    let mut from: &[f32] = &[];
    let starts = (0..batch).step_by(images);
    starts
        .map(|start| {
            let images = images.min(batch - start);
            let (mut wanted, mut parts) = (images * height * width * channels, Vec::new());
            while wanted > 0 {
                if from.is_empty() {
                    match rest.next() {
                        Some(next) => from = next,
                        None => break,
                    }
                }
                let (taken, left) = from.split_at(wanted.min(from.len()));
                wanted -= taken.len();
                from = left;
                parts.push(taken);
            }
            Part {
                parts,
                shape: [images, height, width, channels],
            }
        })
        .collect()
}

fn append(outputs: &mut [Vec<f32>; 2], found: [Vec<f32>; 2]) {
    for (all, some) in outputs.iter_mut().zip(found) {
        all.extend(some);
    }
}

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
        if self.0.contains_key(&size) {
            return;
        }
        if self.0.len() >= most {
            self.0.clear();
        }
        self.0.insert(size, Entry::Seen);
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

/// Images in a part of a batch of `images`; `None` if it is computed as one.
pub(super) fn part_of(images: usize, side: usize) -> Option<usize> {
    let most = (PART_PIXELS / (side * side)).max(1);
    let part = 1 << most.ilog2();
    (images >= 2 * part).then_some(part)
}

/// How many batch sizes are recorded in `memo`.
pub(super) fn recorded(memo: &Memo) -> usize {
    memo.with(|all: &mut Recordings| {
        all.encoding.recorded() + all.parts.recorded() + all.training.recorded()
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

    /// The outputs of a batch in parts of `images`, the last of which may be smaller. `one` computes a part by itself.
    pub(super) fn infer_parts(
        &self,
        memo: &Memo,
        (pixels, images): (Pixels<'_>, usize),
        pass: Pass<'_>,
        one: impl Fn(Pixels<'_>) -> Result<[Vec<f32>; 2]>,
    ) -> Result<[Vec<f32>; 2]> {
        let parts = split(pixels, images);
        let whole = parts.len() - usize::from(pixels.shape[0] % images > 0);
        let mut outputs = [Vec::new(), Vec::new()];
        let done = match self.repeat_parts(memo, &parts[..whole], pass, &mut outputs) {
            true => whole,
            false => 0,
        };
        for part in &parts[done..] {
            append(&mut outputs, one(part.pixels())?);
        }
        memo.with(|all: &mut Recordings| all.parts.saw(images, MOST));
        Ok(outputs)
    }

    /// Whether it has put the outputs of `parts`, which are of one size, in `outputs`: not if there is no recording (yet).
    fn repeat_parts(
        &self,
        memo: &Memo,
        parts: &[Part<'_>],
        pass: Pass<'_>,
        outputs: &mut [Vec<f32>; 2],
    ) -> bool {
        let shape = parts[0].shape;
        let Some(kept) = memo.with(|all: &mut Recordings| all.parts.take(shape[0])) else {
            return false;
        };
        let both = || -> Result<_> { Ok([self.record(shape, pass)?, self.record(shape, pass)?]) };
        let found = kept.map_or_else(both, Ok).and_then(|pair| {
            let found = self.run_parts(&pair, parts);
            // Nothing may run any more when the pair, or what its work reads, is given back.
            self.lane.stream.synchronize().w()?;
            Ok((found?, pair))
        });
        let (entry, done) = match found {
            Ok((found, pair)) => {
                append(outputs, found);
                (Entry::Kept(pair), true)
            }
            Err(error) => {
                tracing::debug!(?shape, %error, "parts of a batch are not recorded");
                self.lane.forget_recordings();
                (Entry::Refused, false)
            }
        };
        memo.with(|all: &mut Recordings| all.parts.put(shape[0], entry));
        done
    }

    /// The pixels of a part are uploaded while the one before is computed.
    fn run_parts(&self, pair: &[Recording; 2], parts: &[Part<'_>]) -> Result<[Vec<f32>; 2]> {
        let mut outputs = [Vec::new(), Vec::new()];
        let mut running: VecDeque<(&Recording, CudaEvent)> = VecDeque::new();
        for (number, part) in parts.iter().enumerate() {
            if let Some((recording, ended)) = running.pop_front_if(|_| number >= 2) {
                ended.synchronize().w()?;
                append(&mut outputs, recording.outputs()?);
            }
            let recording = &pair[number % 2];
            let target = self.map(&recording.pixels)?;
            self.lane.upload_beside(&part.parts, target)?;
            // SAFETY: as for a whole batch; the part before the last, which ran it, has ended.
            unsafe { self.lane.run(&recording.graph) }?;
            running.push_back((recording, self.lane.stream.record_event(None).w()?));
        }
        for (recording, ended) in running {
            ended.synchronize().w()?;
            append(&mut outputs, recording.outputs()?);
        }
        // Its memory counts from its first run on.
        self.lane.check_bound()?;
        Ok(outputs)
    }

    fn run(&self, recording: &Recording, pixels: Pixels<'_>) -> Result<[Vec<f32>; 2]> {
        let target = self.map(&recording.pixels)?;
        self.lane.upload_to(pixels.parts, target)?;
        // SAFETY: what it reads is kept by the recording and the encoder, and nothing else runs it.
        unsafe { self.lane.run(&recording.graph) }?;
        self.lane.stream.synchronize().w()?;
        // Its memory counts from its first run on.
        self.lane.check_bound()?;
        recording.outputs()
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

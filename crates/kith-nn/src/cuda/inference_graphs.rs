//! Passes that only encode, captured as a CUDA graph for each number and size of images. For small batches the CPU needs longer to queue the kernels one by
//! one than the GPU needs to run them; a graph is launched by one call.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::cuda_backend::cudarc::driver::CudaEvent;

use super::arrays::ActivationType;
use super::captured::{CapturedGraphs, CapturedPass};
use super::gpu::Gpu;
use super::graph_table::{Entry, PassSize};
use crate::backend::{GraphCache, InferencePass, Outputs, Pixels, collect_outputs};

/// Maximum number of graphs of one encoder. When there are as many, all are dropped.
const MAX_SIZES: usize = 256;

/// Maximum pixels of a batch that is captured as one graph, less than twice those of a part.
const MAX_PIXELS: usize = 1 << 22;

/// Maximum pixels of a part of a batch, 128 images of 96 px or 32 of 224; twice as many if the batch has at least four such parts. The pixels of
/// one part are uploaded while another is computed.
const PART_PIXELS: usize = MAX_PIXELS / 2;

/// Some images of a batch, as slices of the host's memory.
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

/// Cuts `pixels` into parts of `images` images. The last one may be smaller.
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

fn append(outputs: &mut Outputs<Vec<f32>>, more: Outputs<Vec<f32>>) {
    for (all, more) in outputs.iter_mut().zip(more) {
        all.extend(more);
    }
}

/// Notes in `graphs` that a pass of this size has run without a graph.
pub(super) fn note_seen(graphs: &GraphCache, size: PassSize) {
    graphs.with(|all: &mut CapturedGraphs| all.encoding.note_seen(size, MAX_SIZES));
}

/// Images in a part of a batch of `images`. `None` if the batch is computed as one.
///
/// Twice as many were 12 to 15 % faster where there were four parts (1,024 images of 96 px, 256 of 224), and slower where there would have been one.
pub(super) fn images_of_part(images: usize, side: usize) -> Option<usize> {
    let holds = |pixels: usize| 1 << (pixels / (side * side)).max(1).ilog2();
    let [small, large] = [PART_PIXELS, 2 * PART_PIXELS].map(holds);
    let part = if images >= 4 * large { large } else { small };
    (images >= 2 * small).then_some(part)
}

/// Number of sizes with a captured graph in `graphs`.
pub(super) fn captured(graphs: &GraphCache) -> usize {
    graphs.with(|all: &mut CapturedGraphs| {
        all.encoding.captured() + all.parts.captured() + all.training.captured()
    })
}

impl<T: ActivationType> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// The outputs of a captured pass. `None` if the pass is to run without a graph.
    pub(super) fn launch_inference(
        &self,
        graphs: &GraphCache,
        pixels: Pixels<'_>,
        pass: InferencePass<'_>,
    ) -> Option<Outputs<Vec<f32>>> {
        let [batch, side, ..] = pixels.shape;
        if batch * side * side > MAX_PIXELS {
            return None;
        }
        let outputs =
            match graphs.with(|all: &mut CapturedGraphs| all.encoding.take((batch, side)))? {
                None => self.capture(pixels.shape, pass),
                Some(captured) => Ok(captured),
            }
            .and_then(|captured| Ok((self.launch_captured(&captured, pixels)?, captured)));
        let (entry, outputs) = match outputs {
            Ok((outputs, captured)) => (Entry::Captured(captured), Some(outputs)),
            Err(error) => {
                tracing::debug!(batch, %error, "a pass cannot be captured as a CUDA graph");
                self.ctx.clear_failed_capture();
                (Entry::Rejected, None)
            }
        };
        graphs.with(|all: &mut CapturedGraphs| all.encoding.put((batch, side), entry));
        outputs
    }

    /// The outputs of a batch, computed in parts of `images` images. `one` computes a part by itself.
    pub(super) fn infer_parts(
        &self,
        graphs: &GraphCache,
        (pixels, images): (Pixels<'_>, usize),
        pass: InferencePass<'_>,
        one: impl Fn(Pixels<'_>) -> Result<Outputs<Vec<f32>>>,
    ) -> Result<Outputs<Vec<f32>>> {
        let size = (images, pixels.shape[1]);
        let parts = split(pixels, images);
        let whole = parts.len() - usize::from(pixels.shape[0] % images > 0);
        let mut outputs = Outputs::default();
        let done = if self.launch_parts(graphs, &parts[..whole], pass, &mut outputs) {
            whole
        } else {
            0
        };
        for part in &parts[done..] {
            append(&mut outputs, one(part.pixels())?);
        }
        graphs.with(|all: &mut CapturedGraphs| all.parts.note_seen(size, MAX_SIZES));
        Ok(outputs)
    }

    /// Appends the outputs of `parts`, which are of one size, to `outputs`. `false`: they are to run without a graph.
    fn launch_parts(
        &self,
        graphs: &GraphCache,
        parts: &[Part<'_>],
        pass: InferencePass<'_>,
        outputs: &mut Outputs<Vec<f32>>,
    ) -> bool {
        let shape = parts[0].shape;
        let size = (shape[0], shape[1]);
        let Some(taken) = graphs.with(|all: &mut CapturedGraphs| all.parts.take(size)) else {
            return false;
        };
        let both = || -> Result<_> { Ok([self.capture(shape, pass)?, self.capture(shape, pass)?]) };
        let result = taken.map_or_else(both, Ok).and_then(|pair| {
            let outputs = self.launch_pair(&pair, parts);
            // The pair and the arrays that it reads may be freed only when nothing runs any more.
            self.ctx.stream.synchronize().w()?;
            Ok((outputs?, pair))
        });
        let (entry, done) = match result {
            Ok((more, pair)) => {
                append(outputs, more);
                (Entry::Captured(pair), true)
            }
            Err(error) => {
                tracing::debug!(?shape, %error, "parts of a batch cannot be captured as a CUDA graph");
                self.ctx.clear_failed_capture();
                (Entry::Rejected, false)
            }
        };
        graphs.with(|all: &mut CapturedGraphs| all.parts.put(size, entry));
        done
    }

    /// Launches the two graphs in turn. The pixels of a part are uploaded while the part before is computed.
    fn launch_pair(
        &self,
        pair: &[CapturedPass; 2],
        parts: &[Part<'_>],
    ) -> Result<Outputs<Vec<f32>>> {
        let mut outputs = Outputs::default();
        let mut running: VecDeque<(&CapturedPass, CudaEvent)> = VecDeque::new();
        for (number, part) in parts.iter().enumerate() {
            if let Some((captured, ended)) = running.pop_front_if(|_| number >= 2) {
                ended.synchronize().w()?;
                append(&mut outputs, captured.outputs()?);
            }
            let captured = &pair[number % 2];
            let target = self.activations(&captured.pixels)?;
            self.ctx.upload_concurrently(&part.parts, target)?;
            // SAFETY: as for a whole batch; its launch before, for the part before the last, has ended.
            unsafe { self.ctx.launch_graph(&captured.graph) }?;
            running.push_back((captured, self.ctx.stream.record_event(None).w()?));
        }
        for (captured, ended) in running {
            ended.synchronize().w()?;
            append(&mut outputs, captured.outputs()?);
        }
        // A graph's memory counts from its first launch on.
        self.ctx.check_bound()?;
        Ok(outputs)
    }

    fn launch_captured(
        &self,
        captured: &CapturedPass,
        pixels: Pixels<'_>,
    ) -> Result<Outputs<Vec<f32>>> {
        let target = self.activations(&captured.pixels)?;
        self.ctx.upload_to(pixels.parts, target)?;
        // SAFETY: the captured pass and the encoder keep the arrays that it reads, and nothing else launches it.
        unsafe { self.ctx.launch_graph(&captured.graph) }?;
        self.ctx.stream.synchronize().w()?;
        // A graph's memory counts from its first launch on.
        self.ctx.check_bound()?;
        captured.outputs()
    }

    fn capture(&self, shape: [usize; 4], pass: InferencePass<'_>) -> Result<CapturedPass> {
        self.with_capturer(|gpu| self.capture_on(gpu, shape, pass))
    }

    fn capture_on(
        &self,
        gpu: &Self,
        shape: [usize; 4],
        pass: InferencePass<'_>,
    ) -> Result<CapturedPass> {
        let pixels = self.ctx.build::<T>(&shape, |_| Ok(()))?;
        self.ctx.stream.synchronize().w()?;
        // Once without capture: it chooses algorithms and loads kernels, which is not allowed during a capture.
        let once = pass(gpu, gpu.stem_input(&pixels)?);
        gpu.convolutions.drop_workspace();
        let lengths = once?.map(|tensor| tensor.elem_count());
        gpu.ctx.stream.synchronize().w()?;

        let mut outputs = collect_outputs(lengths.map(|length| gpu.ctx.pinned(length)))?;
        let graph = gpu.ctx.capture(|| {
            let queued = pass(gpu, gpu.stem_input(&pixels)?).and_then(|results| {
                for (tensor, output) in results.iter().zip(&mut outputs) {
                    let wide = gpu.widened(tensor)?;
                    gpu.ctx.fetch(gpu.floats(&wide)?, output)?;
                }
                Ok(())
            });
            gpu.convolutions.drop_workspace();
            queued
        })?;
        Ok(CapturedPass {
            graph,
            pixels,
            outputs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_many_large_parts_are_computed_in_these() {
        let parts = |side, images: [usize; 5]| images.map(|images| images_of_part(images, side));
        let [small, large] = [Some(128), Some(256)];
        let found = parts(96, [255, 256, 1023, 1024, 4096]);
        assert_eq!(found, [None, small, small, large, large]);
        let [small, large] = [Some(32), Some(64)];
        let found = parts(224, [63, 64, 255, 256, 1000]);
        assert_eq!(found, [None, small, small, large, large]);
        // Each image is more than a part.
        assert_eq!(parts(4096, [1, 2, 3, 4, 5])[..2], [None, Some(1)]);
    }

    #[test]
    fn a_part_can_be_captured() {
        for side in 32..512 {
            let parts = (1..4096).filter_map(|images| images_of_part(images, side));
            assert!(
                parts
                    .map(|images| images * side * side)
                    .all(|pixels| pixels <= MAX_PIXELS)
            );
        }
    }
}

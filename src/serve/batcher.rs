//! Gathers waiting images into batches and encodes each in one pass, on a thread of its own. A batch never mixes checkpoints, nor the encoders of the two sides.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{Span, trace_span};

use super::{
    Row, ServeError,
    instruments::Instruments,
    loaded::LoadedTower,
    queue::{FairQueue, Origin},
    wait_estimate::WaitEstimate,
};
use crate::telemetry::{Stage, traces::STAGE};
use kith_nn::Features;

/// One image that waits.
pub(super) struct Job {
    /// The request that it is part of.
    pub(super) origin: Origin,
    /// The encoder captured when the request came.
    pub(super) encoder: Arc<LoadedTower>,
    /// `[side, side, 3]`.
    pub(super) pixels: Vec<f32>,
    /// Closed when nobody waits any more.
    pub(super) reply: oneshot::Sender<Result<Row, ServeError>>,
    /// The image's place in the bound on waiting images; free again when the job is dropped.
    pub(super) permit: OwnedSemaphorePermit,
    /// When it came to be decoded.
    pub(super) came: Instant,
    /// Its wait for a pass, which has not begun.
    pub(super) waiting: Option<Stage>,
    /// The span of the request, whose stages are below it.
    pub(super) request: Span,
}

/// Passes after one with an image of a small request in which the next small request is expected soon.
const SMALL_EXPECTED: u32 = 64;

/// Most images encoded in one pass. A small request that comes while a pass runs waits for its end, so a long pass must pay off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PassSizes {
    /// Of small requests, or of any while no small one is about.
    pub(super) usual: usize,
    /// Of large requests, in a pass that has an image of a small one or while one is expected soon.
    pub(super) small_expected: usize,
}

impl PassSizes {
    /// Of a processor with so many threads: one image a thread keeps a pass short.
    pub(super) fn cpu(max_batch: usize, threads: usize) -> Self {
        Self {
            usual: max_batch,
            small_expected: max_batch.min(threads),
        }
    }

    /// Of a device that needs large batches to be fast.
    pub(super) fn large(max_batch: usize) -> Self {
        Self {
            usual: max_batch,
            small_expected: max_batch,
        }
    }
}

/// Handle to the encoder's thread; when the last one goes, the thread answers what waits and ends.
pub(super) struct Batcher {
    queue: Arc<Queue>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Signalled when a job arrives or the queue closes.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Job>,
    closed: bool,
    /// Passes that may still be made before small requests are no longer expected.
    small_expected: u32,
}

impl Batcher {
    /// Starts the thread `kith-encode`; passes run in `pool`.
    pub(super) fn start(
        pool: Arc<ThreadPool>,
        sizes: PassSizes,
        (instruments, estimate): (Instruments, WaitEstimate),
    ) -> std::io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let own = queue.clone();
        let thread = thread::Builder::new()
            .name("kith-encode".to_owned())
            .spawn(move || {
                while let Some(batch) = own.take(sizes) {
                    pool.install(|| encode(batch, &instruments, &estimate));
                }
            })?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues an image. Bounded by the permits, so this never waits. After closing, the job's caller learns of it at once.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.queue.lock();
        if state.closed {
            drop(state);
            let _ = job.reply.send(Err(ServeError::Stopping));
            return;
        }
        state.waiting.push(job.origin, job);
        self.queue.changed.notify_one();
    }

    /// Answers what waits, then ends the thread. Blocks.
    pub(super) fn stop(&self) {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // The thread catches every panic of a batch; nothing else in it can panic.
            let _ = thread.join();
        }
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the list half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for a job, then takes it with all that may share its pass; `None`: closed and empty.
    fn take(&self, sizes: PassSizes) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            state.waiting.retain(|job| !job.reply.is_closed());
            if let Some(batch) = state.gather(sizes) {
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// The next in turn, and those in turn after it that want the same encoder; `None`: nothing waits.
    fn gather(&mut self, sizes: PassSizes) -> Option<Vec<Job>> {
        let max_of_any = self.max_of_any(sizes);
        let first = self.waiting.pop(|_| true)?;
        let encoder = first.encoder.clone();
        let same = |job: &Job| Arc::ptr_eq(&job.encoder, &encoder);
        let mut batch = vec![first];
        while batch.len() < sizes.usual {
            let next = if batch.len() < max_of_any {
                self.waiting.pop(same)
            } else {
                self.waiting.pop_small(same)
            };
            let Some(job) = next else { break };
            batch.push(job);
        }
        Some(batch)
    }

    /// Images of the next pass from which on only small requests join it.
    fn max_of_any(&mut self, sizes: PassSizes) -> usize {
        if self.waiting.has_small() {
            self.small_expected = SMALL_EXPECTED;
        } else {
            self.small_expected = self.small_expected.saturating_sub(1);
        }
        if self.small_expected > 0 {
            sizes.small_expected
        } else {
            sizes.usual
        }
    }
}

/// Encodes a batch and answers each job. A failure is this batch's only.
fn encode(mut batch: Vec<Job>, instruments: &Instruments, estimate: &WaitEstimate) {
    instruments.batch.record(batch.len() as f64);
    batch.iter_mut().for_each(|job| job.waiting = None);
    let pass = Stage::begin(&instruments.encode, Span::none());
    // The pass is a stage of each of its images.
    let spans: Vec<Span> = batch
        .iter()
        .map(|job| trace_span!(target: STAGE, parent: &job.request, "encode", images = batch.len()))
        .collect();
    let pixels: Vec<&[f32]> = batch.iter().map(|job| &job.pixels[..]).collect();
    let network = &batch[0].encoder.network;
    let outcome = match catch_unwind(AssertUnwindSafe(|| network.forward(&pixels))) {
        Ok(Ok(features)) => Ok(features),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    };
    drop((pass, spans));
    let first = batch.iter().map(|job| job.came).min();
    if let (Ok(_), Some(came)) = (&outcome, first) {
        estimate.answered(batch.len(), came, Instant::now());
    }
    if let Err(error) = &outcome {
        tracing::error!(%error, images = batch.len(), "the encoder failed on a batch");
    }
    for (index, job) in batch.into_iter().enumerate() {
        // Free the place first: who sees the answer must find it free.
        drop(job.permit);
        // The caller may have left meanwhile.
        let _ = job.reply.send(match &outcome {
            Ok(features) => row(features, index).finite(&job.encoder.info),
            Err(error) => Err(ServeError::Encode(error.clone())),
        });
    }
}

fn row(features: &Features, index: usize) -> Row {
    let cut = |vectors: &kith_nn::Vectors| {
        vectors.data[index * vectors.dim..(index + 1) * vectors.dim].to_vec()
    };
    Row {
        embedding: cut(&features.embedding),
        hidden: cut(&features.hidden),
    }
}

#[cfg(test)]
mod tests;

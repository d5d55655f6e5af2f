//! The encoder's queue and thread: takes what waits, up to a bound, and encodes it in one pass. A batch never mixes checkpoints.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Row, ServeError,
    loaded::Loaded,
    queue::{FairQueue, Origin},
};
use crate::nn::Features;

/// One image that waits.
pub(super) struct Job {
    /// The request that it is part of.
    pub(super) origin: Origin,
    /// The encoder captured when the request came.
    pub(super) encoder: Arc<Loaded>,
    /// `[side, side, 3]`.
    pub(super) pixels: Vec<f32>,
    /// Closed when nobody waits any more.
    pub(super) reply: oneshot::Sender<Result<Row, ServeError>>,
    /// The image's place in the bound on waiting images; free again when the job is dropped.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Passes after one with an image of a small request in which the next small request is expected soon.
const SMALL_EXPECTED: u32 = 64;

/// Most images encoded in one pass. A small request that comes while a pass runs waits for its end, so a long pass must pay off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PassSizes {
    /// While no small request is about.
    pub(super) usual: usize,
    /// While one waits, or did a moment ago.
    pub(super) beside_small: usize,
}

impl PassSizes {
    /// Of a processor with so many threads: with more images a pass is longer and not faster for each (docs/encoder.md).
    pub(super) fn cpu(max_batch: usize, threads: usize) -> Self {
        Self {
            usual: max_batch.min(4 * threads),
            beside_small: max_batch.min(2 * threads),
        }
    }

    /// Of a device that needs large batches to be fast.
    pub(super) fn large(max_batch: usize) -> Self {
        Self {
            usual: max_batch,
            beside_small: max_batch,
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
    pub(super) fn start(pool: Arc<ThreadPool>, sizes: PassSizes) -> std::io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let own = queue.clone();
        let thread = thread::Builder::new()
            .name("kith-encode".to_owned())
            .spawn(move || {
                while let Some(batch) = own.take(sizes) {
                    pool.install(|| encode(batch));
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
        self.small_expected = if self.waiting.has_small() {
            SMALL_EXPECTED
        } else {
            self.small_expected.saturating_sub(1)
        };
        let most = if self.small_expected > 0 {
            sizes.beside_small
        } else {
            sizes.usual
        };
        let first = self.waiting.pop(|_| true)?;
        let encoder = first.encoder.clone();
        let same = |job: &Job| Arc::ptr_eq(&job.encoder, &encoder);
        let rest = std::iter::from_fn(|| self.waiting.pop(same)).take(most - 1);
        Some(std::iter::once(first).chain(rest).collect())
    }
}

/// Encodes a batch and answers each job. A failure is this batch's only.
fn encode(batch: Vec<Job>) {
    let pixels: Vec<&[f32]> = batch.iter().map(|job| &job.pixels[..]).collect();
    let network = &batch[0].encoder.network;
    let outcome = match catch_unwind(AssertUnwindSafe(|| network.forward(&pixels))) {
        Ok(Ok(features)) => Ok(features),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    };
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
    let cut = |vectors: &crate::nn::Vectors| {
        vectors.data[index * vectors.dim..(index + 1) * vectors.dim].to_vec()
    };
    Row {
        embedding: cut(&features.embedding),
        hidden: cut(&features.hidden),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        nn::{NnError, Vectors},
        serve::{ModelInfo, loaded::Network},
        types::CheckpointId,
    };

    /// Answers each image with its one pixel; panics or fails on the values of [`PANICS`] and [`FAILS`].
    struct Echo;
    const PANICS: f32 = -1.0;
    const FAILS: f32 = -2.0;

    impl Network for Echo {
        fn forward(&self, images: &[&[f32]]) -> Result<Features, NnError> {
            let pixels = images.concat();
            assert!(!pixels.contains(&PANICS), "asked to panic");
            if pixels.contains(&FAILS) {
                return Err(NnError::Device("asked to fail".to_owned()));
            }
            let vectors = Vectors {
                dim: 1,
                data: pixels,
            };
            Ok(Features {
                embedding: vectors.clone(),
                hidden: vectors,
            })
        }
    }

    type Answer = oneshot::Receiver<Result<Row, ServeError>>;

    fn encoder() -> Arc<Loaded> {
        let info = ModelInfo {
            id: CheckpointId::now(),
            step: 0,
            dim: 1,
            hidden: 1,
            side: 1,
        };
        Arc::new(Loaded {
            info,
            network: Box::new(Echo),
            _in_use: None,
        })
    }

    fn job(encoder: &Arc<Loaded>, pixel: f32, places: &Arc<Semaphore>) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        let permit = places.clone().try_acquire_owned().unwrap();
        let job = Job {
            origin: Origin {
                request: 0,
                small: false,
            },
            encoder: encoder.clone(),
            pixels: vec![pixel],
            reply,
            permit,
        };
        (job, answer)
    }

    const TWO: PassSizes = PassSizes {
        usual: 2,
        beside_small: 2,
    };

    fn push(queue: &Queue, jobs: impl IntoIterator<Item = Job>) {
        let mut state = queue.lock();
        jobs.into_iter()
            .for_each(|job| state.waiting.push(job.origin, job));
    }

    /// All passes to come.
    fn drain(queue: &Queue, sizes: PassSizes) -> Vec<Vec<f32>> {
        queue.close();
        let passes = std::iter::from_fn(|| queue.take(sizes));
        passes.map(|batch| pixels(&batch)).collect()
    }

    fn pixels(batch: &[Job]) -> Vec<f32> {
        batch.iter().map(|job| job.pixels[0]).collect()
    }

    #[test]
    fn a_batch_takes_the_oldest_that_share_an_encoder_and_keeps_the_order_of_the_rest() {
        let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(9)));
        let (a, b) = (encoder(), encoder());
        let (mut jobs, _answers): (Vec<_>, Vec<_>) =
            [(&a, 0.0), (&b, 1.0), (&a, 2.0), (&b, 3.0), (&a, 4.0)]
                .map(|(encoder, pixel)| job(encoder, pixel, &places))
                .into_iter()
                .unzip();
        // All images of a request want one encoder.
        for job in &mut jobs {
            job.origin.request = u64::from(Arc::ptr_eq(&job.encoder, &b));
        }
        push(&queue, jobs);
        assert_eq!(
            drain(&queue, TWO),
            [vec![0.0, 2.0], vec![1.0, 3.0], vec![4.0]]
        );
    }

    #[test]
    fn a_single_image_is_in_the_next_pass_whatever_large_requests_wait_before_it() {
        let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(999)));
        let network = encoder();
        let mut answers = Vec::new();
        let mut large = |request: u64| {
            let (mut job, answer) = job(&network, request as f32, &places);
            job.origin.request = request;
            answers.push(answer);
            job
        };
        let jobs: Vec<Job> = [1, 2]
            .into_iter()
            .flat_map(|request| [(); 8].map(|()| request))
            .map(&mut large)
            .collect();
        push(&queue, jobs);
        let (mut single, _answer) = job(&network, 9.0, &places);
        single.origin = Origin {
            request: 3,
            small: true,
        };
        let sizes = PassSizes {
            usual: 8,
            beside_small: 4,
        };
        assert_eq!(pixels(&queue.take(sizes).unwrap()), [1.0, 2.0].repeat(4));
        push(&queue, [single]);
        assert_eq!(pixels(&queue.take(sizes).unwrap()), [9.0, 1.0, 2.0, 1.0]);
        assert_eq!(queue.take(sizes).unwrap().len(), 4, "another is expected");
        for _ in 0..SMALL_EXPECTED {
            push(&queue, (0..4).map(|_| large(1)).collect::<Vec<_>>());
            queue.take(sizes).unwrap();
        }
        push(&queue, (0..8).map(|_| large(1)).collect::<Vec<_>>());
        let none_expected = queue.take(sizes).unwrap();
        assert_eq!(none_expected.len(), 8);
    }

    #[test]
    fn a_cancelled_image_leaves_the_queue_and_frees_its_place() {
        let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(2)));
        let network = encoder();
        let (gone, answer) = job(&network, 0.0, &places);
        let (kept, _answer) = job(&network, 1.0, &places);
        push(&queue, [gone, kept]);
        drop(answer);
        let batch = queue.take(TWO).unwrap();
        assert_eq!(pixels(&batch), [1.0]);
        assert_eq!(places.available_permits(), 1);
    }

    #[test]
    fn a_vector_that_is_not_finite_is_no_answer_and_its_companions_are() {
        let places = Arc::new(Semaphore::new(4));
        let network = encoder();
        for bad in [f32::NAN, f32::INFINITY] {
            let (with, mut companion) = job(&network, 7.0, &places);
            let (bad, mut own) = job(&network, bad, &places);
            encode(vec![with, bad]);
            assert_eq!(companion.try_recv().unwrap().unwrap().embedding, [7.0]);
            let refused = own.try_recv().unwrap();
            assert!(
                matches!(refused, Err(ServeError::NotFinite { id, .. }) if id == network.info.id)
            );
        }
    }

    #[test]
    fn a_panic_or_an_error_fails_its_own_batch_only() {
        let places = Arc::new(Semaphore::new(4));
        let network = encoder();
        for bad in [PANICS, FAILS] {
            let (with, companion) = job(&network, 7.0, &places);
            let (bad, own) = job(&network, bad, &places);
            encode(vec![with, bad]);
            for mut answer in [companion, own] {
                assert!(matches!(
                    answer.try_recv().unwrap(),
                    Err(ServeError::Encode(_))
                ));
            }
        }
        let (good, mut answer) = job(&network, 7.0, &places);
        encode(vec![good]);
        assert_eq!(answer.try_recv().unwrap().unwrap().embedding, [7.0]);
        assert_eq!(places.available_permits(), 4, "every place is free again");
    }

    #[test]
    fn stopping_answers_what_waits_and_refuses_what_comes_later() {
        let places = Arc::new(Semaphore::new(9));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let batcher = Batcher::start(Arc::new(pool), TWO).unwrap();
        let network = encoder();
        let mut answers = Vec::new();
        for pixel in 0..5 {
            let (job, answer) = job(&network, pixel as f32, &places);
            batcher.push(job);
            answers.push(answer);
        }
        batcher.stop();
        for (pixel, mut answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.try_recv().unwrap().unwrap().hidden, [pixel as f32]);
        }
        let (late, mut answer) = job(&network, 0.0, &places);
        batcher.push(late);
        assert!(matches!(
            answer.try_recv().unwrap(),
            Err(ServeError::Stopping)
        ));
    }
}

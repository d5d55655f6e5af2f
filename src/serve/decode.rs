//! Decodes image files to network input on a pool of its own, which bounds the processor time of decoding.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use rayon::ThreadPool;

use super::queue::{FairQueue, Origin};
use kith_pixels::{Limits, PixelError};

/// Images that may overtake one whose memory is taken; then it has a thread, which waits for the memory.
const MAX_OVERTAKEN: u32 = 256;

/// The threads that decode, with a queue that is fair among requests: the pool's own queue is first come, first served.
pub(super) struct DecodePool {
    threads: ThreadPool,
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Work>,
    /// Threads at work.
    busy: usize,
}

type Decode = Box<dyn FnOnce(&Bytes, &Limits) + Send>;

/// An image to decode.
struct Work {
    origin: Origin,
    image: Bytes,
    /// Bytes that decoding it takes, once its header was read.
    cost: Option<u64>,
    /// Images that went before it because its memory was taken.
    overtaken: AtomicU32,
    decode: Decode,
}

/// Counts a thread as busy until it is dropped.
struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
    }
}

impl DecodePool {
    pub(super) fn new(threads: ThreadPool, limits: Limits) -> Self {
        Self {
            threads,
            shared: Arc::new(Shared {
                limits,
                state: Mutex::default(),
            }),
        }
    }

    /// Runs `decode` on `image` when its request's turn has come and there is memory for it. Bounded by the permits that images hold.
    pub(super) fn spawn(
        &self,
        origin: Origin,
        image: Bytes,
        decode: impl FnOnce(&Bytes, &Limits) + Send + 'static,
    ) {
        self.shared.push(Work {
            origin,
            image,
            cost: None,
            overtaken: AtomicU32::new(0),
            decode: Box::new(decode),
        });
        let shared = self.shared.clone();
        self.threads.spawn(move || shared.work());
    }
}

impl Shared {
    fn push(&self, work: Work) {
        self.state().waiting.push(work.origin, work);
    }

    /// Decodes what waits until nothing is left, or what is left waits for memory that another thread will free.
    fn work(&self) {
        while let Some(mut work) = self.next() {
            let _busy = Busy(self);
            let cost = match work.cost {
                // Its turn has come whether or not there is memory at this moment.
                Some(_) => 0,
                // What has no readable header costs nothing: decoding it says what is wrong.
                None => kith_pixels::decode_cost(&work.image, &self.limits).unwrap_or(0),
            };
            if kith_pixels::is_affordable(cost, &self.limits) {
                (work.decode)(&work.image, &self.limits);
            } else {
                work.cost = Some(cost);
                self.push(work);
            }
        }
    }

    /// The next in turn that its memory is free for. With no other thread at work nothing here would free any: then it is the next in
    /// turn, and its thread waits.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        let alone = state.busy == 0;
        let accepted = |work: &Work| {
            let affordable = |cost| kith_pixels::is_affordable(cost, &self.limits);
            work.cost.is_none_or(affordable)
                || work.overtaken.fetch_add(1, Relaxed) >= MAX_OVERTAKEN
        };
        let next = state.waiting.pop(accepted);
        let next = next.or_else(|| alone.then(|| state.waiting.pop(|_| true)).flatten());
        state.busy += usize::from(next.is_some());
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
/// Decodes and fits one image to `[side, side, 3]`. A decoder that panics on a hostile file counts as undecodable.
pub(super) fn decode(bytes: &Bytes, limits: &Limits, side: usize) -> Result<Vec<f32>, PixelError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        kith_pixels::decode_with(bytes, limits, |image| kith_pixels::fit(&image, side))
    }));
    outcome.unwrap_or_else(|_| {
        tracing::error!(bytes = bytes.len(), "the decoder panicked on an image");
        Err(PixelError::Undecodable(
            "the image cannot be decoded: send it in another format".to_owned(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const SMALL: Origin = Origin {
        request: 2,
        small: true,
    };
    const LARGE: Origin = Origin {
        request: 1,
        small: false,
    };

    fn pool(threads: usize) -> DecodePool {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let limits = Limits {
            max_bytes: 1 << 20,
            max_pixels: 1 << 30,
            decode_memory_mb: 64,
        };
        DecodePool::new(threads.build().unwrap(), limits)
    }

    /// Holds a thread, and the memory that decoding `image` takes, until the sender goes; says when it does.
    fn hold(pool: &DecodePool, image: &Bytes) -> (Sender<()>, Receiver<()>) {
        let (open, gate) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        pool.spawn(LARGE, image.clone(), move |image, limits| {
            let wait = move || {
                begun.send(()).unwrap();
                gate.recv().unwrap_err();
            };
            kith_pixels::decode_with(image, limits, |_| wait()).unwrap();
        });
        (open, begins)
    }

    fn white(side: u32) -> Bytes {
        let pixels = (side * side) as usize;
        let image = kith_pixels::DecodedImage::opaque(side, side, vec![255; 3 * pixels]);
        kith_pixels::encode_png(&image).into()
    }

    #[test]
    fn an_image_whose_memory_is_taken_waits_without_a_thread() {
        let pool = pool(2);
        let (done, order) = mpsc::channel();
        // Takes 45 of the 64 MiB, so that two do not fit.
        let photo = white(1500);
        let (open, begins) = hold(&pool, &photo);
        begins.recv().unwrap();
        // Of one class, so that the photo has its turn first.
        let first = Origin {
            request: 3,
            ..SMALL
        };
        for (origin, image) in [(first, photo), (SMALL, white(1))] {
            let done = done.clone();
            pool.spawn(origin, image, move |image, limits| {
                kith_pixels::decode(image, limits).unwrap();
                done.send(origin).unwrap();
            });
        }
        // Without a thread for it this waits for ever, so it has a bound far beyond the decoding of one pixel.
        let next = order.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(next.unwrap(), SMALL);
        drop(open);
        assert_eq!(order.recv().unwrap(), first);
    }

    #[test]
    fn a_single_image_is_decoded_before_the_rest_of_a_large_request() {
        let pool = pool(1);
        let (done, order) = mpsc::channel();
        // Holds the only thread until all the others wait.
        let (open, begins) = hold(&pool, &white(1));
        begins.recv().unwrap();
        for image in 0..3 {
            let done = done.clone();
            pool.spawn(LARGE, Bytes::new(), move |_, _| done.send(image).unwrap());
        }
        pool.spawn(SMALL, Bytes::new(), move |_, _| done.send(9).unwrap());
        drop(open);
        assert_eq!(order.iter().collect::<Vec<_>>(), [9, 0, 1, 2]);
    }
}

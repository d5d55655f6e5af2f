//! Decodes image files to network input on a pool of its own, which bounds the processor time of decoding.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rayon::ThreadPool;

use super::queue::{FairQueue, Origin};
use kith_pixels::{Limits, PixelError};

type Work = Box<dyn FnOnce() + Send>;

/// The threads that decode, with a queue that is fair among requests: the pool's own queue is first come, first served.
pub(super) struct DecodePool {
    threads: ThreadPool,
    waiting: Arc<Mutex<FairQueue<Work>>>,
}

impl DecodePool {
    pub(super) fn new(threads: ThreadPool) -> Self {
        Self {
            threads,
            waiting: Arc::default(),
        }
    }

    /// Runs `work` when its request's turn has come. Bounded by the permits that images hold.
    pub(super) fn spawn(&self, origin: Origin, work: impl FnOnce() + Send + 'static) {
        push(&self.waiting, origin, Box::new(work));
        let waiting = self.waiting.clone();
        // As many turns as there is work: none finds nothing.
        self.threads.spawn(move || {
            if let Some(work) = pop(&waiting) {
                work();
            }
        });
    }
}

fn push(waiting: &Mutex<FairQueue<Work>>, origin: Origin, work: Work) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.push(origin, work);
}

/// The lock is free again while the work is done.
fn pop(waiting: &Mutex<FairQueue<Work>>) -> Option<Work> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.pop(|_| true)
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
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_single_image_is_decoded_before_the_rest_of_a_large_request() {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let pool = DecodePool::new(threads);
        let (done, order) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let large = Origin {
            request: 1,
            small: false,
        };
        // Holds the only thread until all the others wait.
        pool.spawn(large, move || gate.recv().unwrap());
        for image in 0..3 {
            let done = done.clone();
            pool.spawn(large, move || done.send(image).unwrap());
        }
        let small = Origin {
            request: 2,
            small: true,
        };
        pool.spawn(small, move || done.send(9).unwrap());
        open.send(()).unwrap();
        assert_eq!(order.iter().collect::<Vec<_>>(), [9, 0, 1, 2]);
    }
}

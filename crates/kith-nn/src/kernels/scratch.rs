//! Buffers that are used again: new memory costs a page fault for every 4 KiB, a fifth of a forward pass.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers with fewer values come from the allocator, which is fast for small ones.
const MIN_LEN: usize = 1 << 10;
/// A buffer may be this many times larger than the request. With a smaller factor the pool was measured to hold more memory.
const MAX_EXCESS: usize = 4;
/// A new buffer is larger than the request by one part in this many. One layer's weights differ by less between their layouts, so one buffer
/// fits them all.
const SLACK: usize = 64;
/// Requests after which an unused buffer is freed: about a hundred passes.
const MAX_IDLE: u64 = 10_000;

/// One pool for serving threads, one for background threads: a thread of low priority that is suspended while it holds a lock must not
/// delay a request.
static POOLS: [Mutex<BufferPool>; 2] = [const { Mutex::new(BufferPool::EMPTY) }; 2];

thread_local! {
    /// Which of [`POOLS`] this thread uses.
    static POOL: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread share buffers with background threads only.
pub(crate) fn use_background_buffers() {
    POOL.set(1);
}

/// Buffers that wait to be used again. Their number is bounded by those in use at once during the last [`MAX_IDLE`] requests.
struct BufferPool {
    spares: Vec<Spare>,
    requests: u64,
}

struct Spare {
    buffer: Vec<f32>,
    /// The pool's count of requests when the buffer came back.
    returned: u64,
}

impl BufferPool {
    const EMPTY: Self = Self {
        spares: Vec::new(),
        requests: 0,
    };

    /// This thread's pool.
    fn lock() -> MutexGuard<'static, Self> {
        let pool = &POOLS[POOL.get()];
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest buffer with a capacity from `len` to `max_len`.
    fn take(&mut self, len: usize, max_len: usize) -> Option<Vec<f32>> {
        self.requests += 1;
        let capacity = |i: &usize| self.spares[*i].buffer.capacity();
        let chosen = (0..self.spares.len())
            .filter(|i| (len..=max_len).contains(&capacity(i)))
            .min_by_key(capacity)?;
        Some(self.spares.swap_remove(chosen).buffer)
    }

    fn put(&mut self, buffer: Vec<f32>) {
        let returned = self.requests;
        self.spares
            .retain(|spare| returned - spare.returned < MAX_IDLE);
        self.spares.push(Spare { buffer, returned });
    }
}

/// `len` values of unspecified content, left over from earlier uses.
pub(crate) fn take(len: usize) -> Vec<f32> {
    let mut buffer = at_least(len, len * MAX_EXCESS);
    buffer.truncate(len);
    buffer
}

/// [`take`] for arrays that are kept for long, such as the gradients of weights. It leaves much larger buffers to requests that need them.
pub(crate) fn take_to_keep(len: usize) -> Vec<f32> {
    let mut buffer = at_least(len, len + len / 4);
    buffer.truncate(len);
    buffer
}

/// At least `len` values of unspecified content, in a buffer with a capacity of at most `max_len`, or a new one.
fn at_least(len: usize, max_len: usize) -> Vec<f32> {
    let spare = (len >= MIN_LEN)
        .then(|| BufferPool::lock().take(len, max_len))
        .flatten();
    let mut buffer = spare.unwrap_or_else(|| Vec::with_capacity(len + len / SLACK));
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    if cfg!(debug_assertions) {
        // A read of values that nobody has written shows in the result.
        buffer.fill(f32::NAN);
    }
    buffer
}

/// Keeps `buffer` for a later [`take`].
pub(crate) fn put(buffer: Vec<f32>) {
    if buffer.capacity() >= MIN_LEN {
        BufferPool::lock().put(buffer);
    }
}

/// A buffer that goes back to the pool when it is dropped.
pub(super) struct Scratch {
    /// Not truncated to `len`: the rest would have to be written again before its next use.
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` values of unspecified content.
    pub(super) fn dirty(len: usize) -> Self {
        let buffer = at_least(len, len * MAX_EXCESS);
        Self { buffer, len }
    }

    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut scratch = Self::dirty(len);
        scratch.fill(0.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        put(std::mem::take(&mut self.buffer));
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn a_background_thread_that_holds_its_lock_delays_no_request() {
        let (held, holds) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let background = thread::spawn(move || {
            use_background_buffers();
            let _lock = BufferPool::lock();
            held.send(()).unwrap();
            released.recv().unwrap();
        });
        holds.recv().unwrap();
        let (done, answered) = mpsc::channel();
        let serving = thread::spawn(move || {
            put(take(4 * MIN_LEN));
            done.send(()).unwrap();
        });
        // With one lock for both it would wait for ever.
        let answer = answered.recv_timeout(Duration::from_secs(60));
        release.send(()).unwrap();
        background.join().unwrap();
        serving.join().unwrap();
        assert_eq!(answer, Ok(()));
    }

    #[test]
    fn a_buffer_goes_back_to_the_threads_that_use_it() {
        // A size that no other test asks for, in either pool.
        let (len, address) = (7_654_321, |buffer: &Vec<f32>| buffer.as_ptr() as usize);
        let background = thread::spawn(move || {
            use_background_buffers();
            let buffer = take_to_keep(len);
            let place = address(&buffer);
            put(buffer);
            let again = take_to_keep(len);
            assert_eq!(address(&again), place);
            place
        });
        background.join().unwrap();
        let foreign = BufferPool::lock().take(len, len + len / 4);
        assert!(foreign.is_none(), "it came from the other pool");
    }
}

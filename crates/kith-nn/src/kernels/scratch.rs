//! Memory that is used again: fresh memory costs a page fault for every 4 KiB, a fifth of a forward pass.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers with fewer values come from the allocator, which has small memory at hand.
const SMALLEST: usize = 1 << 10;
/// A buffer may be this many times larger than what is asked for: measured, with less the shelf holds more.
const WASTE: usize = 4;
/// One part in so many that a new buffer has more than was asked for: weights of one layer in different layouts differ by less, and so one
/// buffer serves them all.
const ROOM: usize = 64;
/// Buffers asked for since a buffer was last used, after which it is freed: about a hundred passes.
const IDLE: u64 = 10_000;

/// One for threads that serve, one for those in the background: a thread of low priority that is suspended while it holds a lock
/// must not hold up a request.
static SHELVES: [Mutex<Shelf>; 2] = [const { Mutex::new(Shelf::EMPTY) }; 2];

thread_local! {
    /// Which of [`SHELVES`] this thread uses.
    static SHELF: Cell<usize> = const { Cell::new(0) };
}

/// From now on this thread shares buffers with background threads only.
pub(crate) fn use_background_buffers() {
    SHELF.set(1);
}

/// Buffers that wait to be used again. What it holds is bounded by what was in use together within the last [`IDLE`].
struct Shelf {
    spares: Vec<Spare>,
    asked: u64,
}

struct Spare {
    buffer: Vec<f32>,
    /// The shelf's count when it was put here.
    put: u64,
}

impl Shelf {
    const EMPTY: Self = Self {
        spares: Vec::new(),
        asked: 0,
    };

    /// This thread's.
    fn open() -> MutexGuard<'static, Self> {
        let shelf = &SHELVES[SHELF.get()];
        shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest that has room for `len` values, but at most for `most`.
    fn take(&mut self, len: usize, most: usize) -> Option<Vec<f32>> {
        self.asked += 1;
        let room = |i: &usize| self.spares[*i].buffer.capacity();
        let chosen = (0..self.spares.len())
            .filter(|i| (len..=most).contains(&room(i)))
            .min_by_key(room)?;
        Some(self.spares.swap_remove(chosen).buffer)
    }

    fn put(&mut self, buffer: Vec<f32>) {
        let put = self.asked;
        self.spares.retain(|spare| put - spare.put < IDLE);
        self.spares.push(Spare { buffer, put });
    }
}

/// `len` values of unspecified content, left over from earlier uses.
pub(crate) fn take(len: usize) -> Vec<f32> {
    let mut buffer = at_least(len, len * WASTE);
    buffer.truncate(len);
    buffer
}

/// [`take`] for what is kept for long, such as the gradients of weights: a buffer that is much larger stays for those that need it.
pub(crate) fn take_to_keep(len: usize) -> Vec<f32> {
    let mut buffer = at_least(len, len + len / 4);
    buffer.truncate(len);
    buffer
}

/// At least `len` values of unspecified content, in a buffer with room for at most `most`.
fn at_least(len: usize, most: usize) -> Vec<f32> {
    let spare = (len >= SMALLEST)
        .then(|| Shelf::open().take(len, most))
        .flatten();
    let mut buffer = spare.unwrap_or_else(|| Vec::with_capacity(len + len / ROOM));
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    if cfg!(debug_assertions) {
        // Whoever reads what nobody has written shall not get away with it.
        buffer.fill(f32::NAN);
    }
    buffer
}

/// Keeps `buffer` for a later [`take`].
pub(crate) fn put(buffer: Vec<f32>) {
    if buffer.capacity() >= SMALLEST {
        Shelf::open().put(buffer);
    }
}

/// A buffer for the time of a computation.
pub(super) struct Scratch {
    /// Not cut to `len`: what is cut off would have to be written before it can be used again.
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` values of unspecified content.
    pub(super) fn dirty(len: usize) -> Self {
        let buffer = at_least(len, len * WASTE);
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
    fn a_background_thread_that_holds_its_lock_holds_up_no_request() {
        let (held, holds) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let background = thread::spawn(move || {
            use_background_buffers();
            let _lock = Shelf::open();
            held.send(()).unwrap();
            released.recv().unwrap();
        });
        holds.recv().unwrap();
        let (done, answered) = mpsc::channel();
        let serving = thread::spawn(move || {
            put(take(4 * SMALLEST));
            done.send(()).unwrap();
        });
        // Behind the other's lock it would wait for ever.
        let answer = answered.recv_timeout(Duration::from_secs(60));
        release.send(()).unwrap();
        background.join().unwrap();
        serving.join().unwrap();
        assert_eq!(answer, Ok(()));
    }

    #[test]
    fn a_buffer_goes_back_to_the_threads_that_use_it() {
        // A size that no other test asks for, in either shelf.
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
        let foreign = Shelf::open().take(len, len + len / 4);
        assert!(foreign.is_none(), "it came from the other shelf");
    }
}

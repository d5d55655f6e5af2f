//! Working memory that each thread keeps between calls: fresh memory costs a page fault for every 4 KiB.
//! Must never know: what it is used for.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed buffer; goes back to its thread when dropped.
pub(super) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` values of unspecified content (left over from earlier uses).
    pub(super) fn dirty(len: usize) -> Self {
        let mut buffer = SPARE.with_borrow_mut(|spare| take_fitting(spare, len));
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        Self { buffer, len }
    }

    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut scratch = Self::dirty(len);
        scratch.fill(0.0);
        scratch
    }
}

/// The smallest spare buffer that is large enough, else the largest (it will grow).
fn take_fitting(spare: &mut Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let fitting = (0..spare.len())
        .filter(|&i| spare[i].len() >= len)
        .min_by_key(|&i| spare[i].len());
    let chosen = fitting.or_else(|| (0..spare.len()).max_by_key(|&i| spare[i].len()));
    chosen.map(|i| spare.swap_remove(i)).unwrap_or_default()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending has no store any more; the buffer is then simply freed.
        let _ = SPARE.try_with(|spare| spare.borrow_mut().push(buffer));
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

//! One bound on the memory that all decoders of the process use together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The budget of all decodes in the process.
static DECODING: Budget = Budget::new();

/// Counts bytes in use, and wakes waiting threads when some are freed.
pub(super) struct Budget {
    used: Mutex<u64>,
    freed: Condvar,
}

/// Bytes in use until this guard is dropped.
pub(super) struct Charge<'a> {
    budget: &'a Budget,
    bytes: u64,
}

/// Charges `bytes` to the process's budget; blocks until they fit into `capacity`.
pub(super) fn charge(bytes: u64, capacity: u64) -> Charge<'static> {
    DECODING.charge(bytes, capacity)
}

/// Whether [`charge`] would not block at this moment.
pub(super) fn fits(bytes: u64, capacity: u64) -> bool {
    may_charge(*DECODING.used(), bytes, capacity)
}

/// A charge larger than the capacity waits until nothing else is charged, so it is slow but never stuck.
fn may_charge(used: u64, bytes: u64, capacity: u64) -> bool {
    used == 0 || used + bytes <= capacity
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self {
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Blocks until `bytes` fit into `capacity`.
    pub(super) fn charge(&self, bytes: u64, capacity: u64) -> Charge<'_> {
        let mut used = self.used();
        while !may_charge(*used, bytes, capacity) {
            used = self
                .freed
                .wait(used)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Charge {
            budget: self,
            bytes,
        }
    }

    fn used(&self) -> MutexGuard<'_, u64> {
        // The count is changed in one addition, so a panic leaves it right.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        *self.budget.used() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn charges_together_never_exceed_the_capacity_and_all_get_their_turn() {
        const CAPACITY: u64 = 100;
        let budget = Budget::new();
        let (held, done) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for size in [30, 40, 60, 70, 90, 10, 25, 55] {
                let (budget, held, done) = (&budget, &held, &done);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let charge = budget.charge(size, CAPACITY);
                        let before = held.fetch_add(size, Ordering::SeqCst);
                        assert!(before + size <= CAPACITY);
                        held.fetch_sub(size, Ordering::SeqCst);
                        drop(charge);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 1600);
        assert_eq!(*budget.used(), 0);
    }

    #[test]
    fn a_charge_beyond_the_capacity_goes_alone() {
        let budget = Budget::new();
        drop(budget.charge(500, 100));
        let small = budget.charge(1, 100);
        drop(small);
        assert_eq!(*budget.used(), 0);
    }
}

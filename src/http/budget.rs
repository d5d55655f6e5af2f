//! The bound on bytes of request bodies held at once. A body is charged for what has arrived of it, never for what it says will come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Problem};

/// The semaphore counts in these units, so that its 32-bit count reaches far enough.
const UNIT: usize = 1024;

/// Bytes that bodies may hold at once; cheap to clone.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
}

/// What one request holds. It grows as bytes arrive, and is given back when the last clone goes.
#[derive(Clone)]
pub(super) struct Charge {
    budget: Budget,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// `bytes`: in all.
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
        }
    }

    /// A charge of nothing yet.
    pub(super) fn open(&self) -> Charge {
        Charge {
            budget: self.clone(),
            held: Arc::default(),
        }
    }

    /// Refuses at once what has no room at this moment. Takes nothing: a declared length is only words.
    pub(super) fn check(&self, bytes: u64) -> Result<(), ApiError> {
        let free = self.units.available_permits() as u64 * UNIT as u64;
        if bytes <= free { Ok(()) } else { Err(full()) }
    }
}

impl Charge {
    /// Takes `bytes` more, at once or not at all.
    pub(super) fn add(&self, bytes: usize) -> Result<(), ApiError> {
        let mut held = self.held();
        let wanted = (held.bytes + bytes).div_ceil(UNIT);
        let more = wanted - held.bytes.div_ceil(UNIT);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = self.budget.units.clone().try_acquire_many_owned(more);
        let permit = permit.map_err(|_| full())?;
        match &mut held.permit {
            Some(all) => all.merge(permit),
            none => *none = Some(permit),
        }
        held.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` back: a stream is done with them.
    pub(super) fn release(&self, bytes: usize) {
        let mut held = self.held();
        let left = held.bytes.saturating_sub(bytes);
        let fewer = held.bytes.div_ceil(UNIT) - left.div_ceil(UNIT);
        held.bytes = left;
        if let Some(all) = &mut held.permit {
            drop(all.split(fewer));
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change is whole before the lock goes, so a panic elsewhere leaves it usable.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full() -> ApiError {
    let message = "too many large requests are being read: retry in a moment";
    ApiError::Overloaded(Problem::new("overloaded", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_budget_and_give_it_back() {
        let budget = Budget::new(4 * UNIT);
        let (first, second) = (budget.open(), budget.open());
        first.add(3 * UNIT).unwrap();
        assert!(matches!(second.add(2 * UNIT), Err(ApiError::Overloaded(_))));
        drop(first);
        second.add(4 * UNIT).unwrap();
        assert!(budget.check(1).is_err());
    }

    #[test]
    fn many_small_chunks_cost_their_bytes_and_not_a_unit_each() {
        let budget = Budget::new(2 * UNIT);
        let charge = budget.open();
        for _ in 0..2 * UNIT {
            charge.add(1).unwrap();
        }
        assert!(charge.add(1).is_err());
        charge.release(UNIT);
        budget.check(UNIT as u64).unwrap();
        charge.release(10 * UNIT);
        budget.check(2 * UNIT as u64).unwrap();
    }
}

//! The limit on bytes of request bodies held at once. A body is charged for the bytes that have arrived, not for its declared length.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Problem};

/// The semaphore counts in these units, so that its 32-bit count reaches far enough.
const UNIT: usize = 1024;

/// The bytes that all bodies together may hold; cheap to clone.
#[derive(Clone)]
pub(super) struct BodyBudget {
    units: Arc<Semaphore>,
}

/// The bytes that one request holds. They grow as bytes arrive, and are released when the last clone is dropped.
#[derive(Clone)]
pub(super) struct BodyPermit {
    budget: BodyBudget,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// A budget of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
        }
    }

    /// A permit for no bytes yet.
    pub(super) fn permit(&self) -> BodyPermit {
        BodyPermit {
            budget: self.clone(),
            held: Arc::default(),
        }
    }

    /// Whether `bytes` fit at this moment; 429 otherwise. Nothing is charged, since a declared length need not come true.
    pub(super) fn check(&self, bytes: u64) -> Result<(), ApiError> {
        let free = self.units.available_permits() as u64 * UNIT as u64;
        if bytes <= free { Ok(()) } else { Err(full()) }
    }
}

impl BodyPermit {
    /// Charges `bytes` more; 429 if they do not fit at this moment.
    pub(super) fn acquire(&self, bytes: usize) -> Result<(), ApiError> {
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

    /// Releases `bytes` that a stream no longer holds.
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
        // Every change is complete before the lock is released, so a poisoned lock still guards valid state.
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
        let budget = BodyBudget::new(4 * UNIT);
        let (first, second) = (budget.permit(), budget.permit());
        first.acquire(3 * UNIT).unwrap();
        assert!(matches!(
            second.acquire(2 * UNIT),
            Err(ApiError::Overloaded(_))
        ));
        drop(first);
        second.acquire(4 * UNIT).unwrap();
        assert!(budget.check(1).is_err());
    }

    #[test]
    fn many_small_chunks_cost_their_bytes_and_not_a_unit_each() {
        let budget = BodyBudget::new(2 * UNIT);
        let permit = budget.permit();
        for _ in 0..2 * UNIT {
            permit.acquire(1).unwrap();
        }
        assert!(permit.acquire(1).is_err());
        permit.release(UNIT);
        budget.check(UNIT as u64).unwrap();
        permit.release(10 * UNIT);
        budget.check(2 * UNIT as u64).unwrap();
    }
}

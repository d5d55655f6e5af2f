//! The limit on bytes of request bodies held at once. A body is charged for the bytes that have arrived, not for its declared length.
//! When the limit is reached, a body that has stalled is evicted.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Problem};

/// The semaphore counts in these units, so that its 32-bit count reaches far enough.
const UNIT: usize = 1024;

/// How long a body may stall before it may be evicted for another.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// The bytes that all bodies together may hold; cheap to clone.
#[derive(Clone)]
pub(super) struct BodyBudget {
    units: Arc<Semaphore>,
    all_units: usize,
    /// Of the requests that are being read; ended ones are removed when another begins.
    bodies: Arc<Mutex<Vec<Weak<Mutex<Held>>>>>,
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
    /// When the body stalled, and the task that waits for its next bytes.
    stalled: Option<(Instant, Waker)>,
    evicted: bool,
}

impl BodyBudget {
    /// A budget of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            all_units: units,
            bodies: Arc::default(),
        }
    }

    /// Bytes that all bodies hold at this moment.
    pub(super) fn held(&self) -> usize {
        let free = self.units.available_permits();
        self.all_units.saturating_sub(free) * UNIT
    }

    /// A permit for no bytes yet.
    pub(super) fn permit(&self) -> BodyPermit {
        let held = Arc::default();
        let mut bodies = lock(&self.bodies);
        bodies.retain(|body| body.strong_count() > 0);
        bodies.push(Arc::downgrade(&held));
        BodyPermit {
            budget: self.clone(),
            held,
        }
    }

    /// Whether `bytes` fit at this moment; 429 otherwise. Nothing is charged, since a declared length need not come true.
    pub(super) fn check(&self, bytes: u64) -> Result<(), ApiError> {
        let fits = || bytes <= self.units.available_permits() as u64 * UNIT as u64;
        while !fits() {
            self.evict()?;
        }
        Ok(())
    }

    fn acquire(&self, units: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        loop {
            match self.units.clone().try_acquire_many_owned(units) {
                Ok(permit) => return Ok(permit),
                Err(_) => self.evict()?,
            }
        }
    }

    /// Releases the bytes of the body that has stalled longest, which then fails; 429 if none has stalled long enough.
    fn evict(&self) -> Result<(), ApiError> {
        let bodies = lock(&self.bodies);
        let stalled = bodies.iter().filter_map(|body| {
            let body = body.upgrade()?;
            let held = lock(&body);
            let since = held.stalled.as_ref()?.0;
            let due = held.permit.is_some() && since.elapsed() >= STALL_GRACE;
            drop(held);
            due.then_some((since, body))
        });
        let (_, longest) = stalled.min_by_key(|(since, _)| *since).ok_or_else(full)?;
        let mut held = lock(&longest);
        // It may have resumed meanwhile; the caller looks again.
        if let Some((_, waker)) = held.stalled.take() {
            (held.bytes, held.permit, held.evicted) = (0, None, true);
            waker.wake();
        }
        Ok(())
    }
}

impl BodyPermit {
    /// Charges `bytes` more; 429 if they do not fit at this moment.
    pub(super) fn acquire(&self, bytes: usize) -> Result<(), ApiError> {
        let before = self.held().bytes;
        let more = (before + bytes).div_ceil(UNIT) - before.div_ceil(UNIT);
        // The lock is not held meanwhile: an eviction looks at all bodies.
        let permit = self
            .budget
            .acquire(u32::try_from(more).unwrap_or(u32::MAX))?;
        let mut held = self.held();
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

    /// The next bytes have not come; `waker` is woken by an eviction.
    pub(super) fn stall(&self, waker: &Waker) {
        let stalled = &mut self.held().stalled;
        let since = stalled.as_ref().map(|(since, _)| *since);
        *stalled = Some((since.unwrap_or_else(Instant::now), waker.clone()));
    }

    /// The next bytes have come.
    pub(super) fn resume(&self) {
        self.held().stalled = None;
    }

    /// Whether the body stalled and its bytes were released for another.
    pub(super) fn is_evicted(&self) -> bool {
        self.held().evicted
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is released, so a poisoned lock still guards valid state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn the_body_that_stalled_longest_is_evicted() {
        let budget = BodyBudget::new(4 * UNIT);
        let bodies = [(); 3].map(|()| budget.permit());
        for (body, seconds) in bodies.iter().zip([3, 2, 0]) {
            body.acquire(UNIT).unwrap();
            body.stall(Waker::noop());
            body.held().stalled.as_mut().unwrap().0 -= Duration::from_secs(seconds);
        }
        let new = budget.permit();
        new.acquire(2 * UNIT).unwrap();
        assert_eq!(
            bodies.each_ref().map(BodyPermit::is_evicted),
            [true, false, false]
        );
        bodies[1].resume();
        assert!(
            budget.check(1).is_err(),
            "the third has not stalled for long"
        );
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

//! Which requests may join the queue.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{
    ServeError,
    wait_estimate::{QueuedImages, WaitEstimate},
};

/// The places of the queue, and the wait of small requests.
pub(super) struct Admissions {
    places: Arc<Semaphore>,
    /// Of places.
    limit: usize,
    /// Held while places are counted and taken.
    admitting: Mutex<()>,
    estimate: WaitEstimate,
    /// Zero: no bound.
    max_wait: Duration,
    /// So many images of small requests may wait in any case: one pass takes them together.
    pass: usize,
    closed: AtomicBool,
}

/// Places in the queue for the images of one request; given back when dropped or when the images are encoded.
pub struct Admission {
    permit: OwnedSemaphorePermit,
}

impl Admissions {
    /// `limit`: of images; `max_wait`: of a small request, zero without a bound; `pass`: most images of a pass.
    pub(super) fn new(limit: usize, max_wait: Duration, pass: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limit)),
            limit,
            admitting: Mutex::new(()),
            estimate: WaitEstimate::default(),
            max_wait,
            pass,
            closed: AtomicBool::new(false),
        }
    }

    /// Images that were accepted and not answered yet.
    pub(super) fn waiting(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }

    /// Takes places for `images` images, at once or not at all. A large request leaves an eighth of the queue to smaller ones, unless it has the
    /// queue for itself. Its errors are those of [`super::Serving::admit`].
    pub(super) fn admit(&self, images: usize) -> Result<Admission, ServeError> {
        let limit = self.limit;
        if self.closed.load(SeqCst) {
            return Err(ServeError::Stopping);
        }
        let places = u32::try_from(images).ok().filter(|_| images <= limit);
        let places = places.ok_or(ServeError::TooMany { images, limit })?;
        let left_to_others = images.saturating_sub(1).min(limit / 8);
        // Between the count and the taking, places can only become free.
        let _one_at_a_time = (self.admitting.lock()).unwrap_or_else(PoisonError::into_inner);
        let free = self.places.available_permits();
        if free < limit && free < images + left_to_others {
            return Err(ServeError::Overloaded);
        }
        match self.places.clone().try_acquire_many_owned(places) {
            Ok(permit) => Ok(Admission { permit }),
            Err(TryAcquireError::NoPermits) => Err(ServeError::Overloaded),
            Err(TryAcquireError::Closed) => Err(ServeError::Stopping),
        }
    }

    /// Counts `images` of a small request as waiting, unless those before them fill a pass and take too long. Refusing more would leave passes
    /// half empty: each image then costs more, and the wait grows instead of shrinking.
    pub(super) fn enqueue_small(&self, images: usize) -> Result<QueuedImages, ServeError> {
        let is_full = !self.max_wait.is_zero() && self.estimate.waiting() >= self.pass;
        if is_full && self.estimate.wait() > self.max_wait {
            return Err(ServeError::LongWait);
        }
        Ok(self.estimate.enter(images))
    }

    /// The estimate of the wait, for who answers.
    pub(super) fn estimate(&self) -> &WaitEstimate {
        &self.estimate
    }

    /// Refuses all that comes from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Waits until all accepted images are answered: until all places are free.
    pub(super) async fn drained(&self) {
        // The configured bound fits a u32, or nothing was ever admitted.
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await;
    }
}

impl Admission {
    /// One place for each image.
    pub(super) fn places(mut self) -> impl Iterator<Item = OwnedSemaphorePermit> {
        std::iter::from_fn(move || self.permit.split(1))
    }
}

//! Estimates how long a new image would wait in the queue, from the rate of answers.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Images that the average remembers, roughly.
const REMEMBERED: f64 = 64.0;

/// The queueing delay of small requests: the images of theirs that are queued, times the average time between answers. Large requests are not counted, since
/// small ones go before them.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitEstimate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    small: AtomicUsize,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// Average over the answered images; 0 before the first.
    seconds_an_image: f64,
    images: f64,
    /// End of the last pass.
    last: Option<Instant>,
}

/// Queued images of a small request. Dropping it takes them out.
#[derive(Debug)]
pub(super) struct QueuedImages {
    shared: Arc<Shared>,
    images: usize,
}

impl WaitEstimate {
    /// Counts `images` of a small request as waiting.
    pub(super) fn enter(&self, images: usize) -> QueuedImages {
        self.shared.small.fetch_add(images, SeqCst);
        QueuedImages {
            shared: self.shared.clone(),
            images,
        }
    }

    /// Notes that a pass answered `images` at `now`, the first of which came at `came`. They took since then, or since the pass before if that was later.
    pub(super) fn answered(&self, images: usize, came: Instant, now: Instant) {
        let mut answers = (self.shared.answers.lock()).unwrap_or_else(PoisonError::into_inner);
        let began = answers.last.map_or(came, |last| last.max(came));
        let images = images as f64;
        let each = now.saturating_duration_since(began).as_secs_f64() / images;
        answers.images += images;
        // As if each image of the pass were noted by itself. The first ones are a plain mean.
        let weight = 1.0 - (1.0 - 1.0 / REMEMBERED).powf(images);
        let weight = weight.max(images / answers.images);
        answers.seconds_an_image += weight * (each - answers.seconds_an_image);
        answers.last = Some(now);
    }

    /// Images of small requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.shared.small.load(SeqCst)
    }

    /// How long an image of a small request would wait for those before it.
    pub(super) fn wait(&self) -> Duration {
        let answers = (self.shared.answers.lock()).unwrap_or_else(PoisonError::into_inner);
        let waiting = self.waiting() as f64;
        Duration::from_secs_f64(answers.seconds_an_image * waiting)
    }
}

impl Drop for QueuedImages {
    fn drop(&mut self) {
        self.shared.small.fetch_sub(self.images, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_is_the_queued_images_times_the_time_of_one_however_many_a_pass_has() {
        for batch in [1, 32, 1024] {
            let estimate = WaitEstimate::default();
            let queued = estimate.enter(10);
            assert_eq!(estimate.wait(), Duration::ZERO);
            let start = Instant::now();
            // All came at once, and each takes 4 ms.
            for pass in 1..=8 {
                estimate.answered(batch, start, start + pass * batch as u32 * 4 * MS);
            }
            assert_near(&estimate, 40 * MS);
            let more = estimate.enter(5);
            assert_near(&estimate, 60 * MS);
            drop((queued, more));
            assert_eq!(estimate.wait(), Duration::ZERO);
        }
    }

    #[test]
    fn a_slow_first_image_is_one_of_many() {
        let estimate = WaitEstimate::default();
        let start = Instant::now();
        estimate.answered(1, start, start + 64 * MS);
        estimate.answered(31, start, start + 64 * MS + 31 * 2 * MS);
        let _queued = estimate.enter(1);
        // The mean of 64 ms and 31 times 2 ms, where the pass's weight is its share of the images.
        assert_near(&estimate, Duration::from_micros(3_938));
    }

    #[test]
    fn time_in_which_nothing_waited_is_not_the_time_of_an_image() {
        let estimate = WaitEstimate::default();
        let start = Instant::now();
        estimate.answered(1, start, start + 4 * MS);
        let later = start + 1_000_000 * MS;
        estimate.answered(1, later, later + 4 * MS);
        let _queued = estimate.enter(1);
        assert_near(&estimate, 4 * MS);
    }

    #[test]
    fn the_average_follows_a_change() {
        let estimate = WaitEstimate::default();
        let start = Instant::now();
        let slow = start + 100 * 100 * MS;
        estimate.answered(100, start, slow);
        estimate.answered(640, start, slow + 640 * 2 * MS);
        let _queued = estimate.enter(1);
        // (1 - 1/64)^640 of the 98 ms between them is left: 4 µs. The plain mean would leave 13 ms.
        let left = estimate.wait().saturating_sub(2 * MS);
        assert!(left < Duration::from_micros(5), "{left:?}");
    }

    /// But for the rounding of floats.
    fn assert_near(estimate: &WaitEstimate, expected: Duration) {
        let off = estimate.wait().abs_diff(expected);
        assert!(off < Duration::from_micros(1), "{:?}", estimate.wait());
    }
}

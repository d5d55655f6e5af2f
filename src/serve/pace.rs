//! How long a new image would wait, from how fast images are answered.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Weight of a new image in the average of seconds an image: some hundred images are remembered.
const WEIGHT: f64 = 1.0 / 64.0;

/// The pace of answers, and the images of small requests that wait. Large requests wait longer by their nature; small ones go before them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    small: AtomicUsize,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// `None` before the first answer.
    seconds_an_image: Option<f64>,
    last: Option<Instant>,
}

/// Images of a small request, until this is dropped.
#[derive(Debug)]
pub(super) struct SmallImages {
    shared: Arc<Shared>,
    images: usize,
}

impl Pace {
    /// Counts `images` of a small request as waiting.
    pub(super) fn enter(&self, images: usize) -> SmallImages {
        self.shared.small.fetch_add(images, SeqCst);
        SmallImages {
            shared: self.shared.clone(),
            images,
        }
    }

    /// Notes that an image that came at `came` was answered at `now`. It took since then, or since the answer before if that was later.
    pub(super) fn answered(&self, came: Instant, now: Instant) {
        let mut answers = (self.shared.answers.lock()).unwrap_or_else(PoisonError::into_inner);
        let began = answers.last.map_or(came, |last| last.max(came));
        let took = now.saturating_duration_since(began).as_secs_f64();
        let before = answers.seconds_an_image.unwrap_or(took);
        answers.seconds_an_image = Some(before + WEIGHT * (took - before));
        answers.last = Some(now);
    }

    /// How long an image of a small request would wait for those before it.
    pub(super) fn wait(&self) -> Duration {
        let answers = (self.shared.answers.lock()).unwrap_or_else(PoisonError::into_inner);
        let waiting = self.shared.small.load(SeqCst) as f64;
        Duration::from_secs_f64(answers.seconds_an_image.unwrap_or(0.0) * waiting)
    }
}

impl Drop for SmallImages {
    fn drop(&mut self) {
        self.shared.small.fetch_sub(self.images, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_is_the_images_that_wait_times_the_time_between_answers() {
        let pace = Pace::default();
        let waiting = pace.enter(10);
        assert_eq!(pace.wait(), Duration::ZERO);
        let start = Instant::now();
        // All came at once, and one is answered every 4 ms.
        for answer in 1..=8 {
            pace.answered(start, start + answer * 4 * MS);
        }
        assert_eq!(pace.wait(), 40 * MS);
        let more = pace.enter(5);
        assert_eq!(pace.wait(), 60 * MS);
        drop((waiting, more));
        assert_eq!(pace.wait(), Duration::ZERO);
    }

    #[test]
    fn time_in_which_nothing_waited_is_not_the_time_of_an_image() {
        let pace = Pace::default();
        let start = Instant::now();
        pace.answered(start, start + 4 * MS);
        let later = start + 1_000_000 * MS;
        pace.answered(later, later + 4 * MS);
        let _waiting = pace.enter(1);
        let off = pace.wait().abs_diff(4 * MS);
        assert!(off < Duration::from_micros(1), "{off:?}");
    }

    #[test]
    fn the_pace_follows_a_change() {
        let pace = Pace::default();
        let start = Instant::now();
        pace.answered(start, start + 100 * MS);
        for pass in 1..=400 {
            pace.answered(start, start + 100 * MS + pass * 2 * MS);
        }
        let _waiting = pace.enter(1);
        // (1 - 1/64)^400 of 98 ms is 0.2 ms.
        let off = pace.wait().abs_diff(2 * MS);
        assert!(off < MS, "{off:?}");
    }
}

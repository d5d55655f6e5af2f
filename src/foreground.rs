//! Serving comes first: while requests are in the foreground, threads that compute in the background pause.
//!
//! A low priority alone does not do it. The scheduler moves a request's threads to a core that computes nothing, and sees no need to while both
//! cores do, be it at the lowest priority; and what the background computes leaves the request cold caches.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// How long no request must be in the foreground before the background resumes. A client that sends one request after the other takes less time
/// between them. A paused thread polls at this interval.
const GRACE: Duration = Duration::from_millis(2);
/// How long the background runs after the longest pause.
const TIME_SLICE: Duration = Duration::from_millis(50);

/// What is in the foreground; cheap to clone.
#[derive(Clone, Debug)]
pub struct Foreground {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The longest pause in microseconds; `u64::MAX`: as long as a request is in the foreground.
    max_pause: u64,
    created: Instant,
    requests: AtomicUsize,
    /// Callers that wait for the background.
    waiting: AtomicUsize,
    /// Microseconds after `created` at which the last request ended.
    idle_since: AtomicU64,
    /// Microseconds after `created` at which the background's time slice ends.
    slice_until: AtomicU64,
    /// Held by the one paused thread that polls; the others wait for it.
    poller: Mutex<Schedule>,
    paused: AtomicU64,
}

/// When the background gets its next time slice beside requests. All in microseconds after `created`.
#[derive(Debug)]
struct Schedule {
    next_slice: u64,
    /// End of the last pause. Between short pauses the background hardly runs, so they count as one.
    resumed: u64,
}

/// A request in the foreground. Dropping it takes the request out.
#[derive(Debug)]
pub struct ForegroundRequest(Arc<Shared>);

/// While this exists, the background does not pause.
#[derive(Debug)]
pub struct Boost(Arc<Shared>);

impl Foreground {
    /// Creates a foreground without requests. The background has at least `min_share` (0 to 1) of the time, however much is in the foreground. With 1 it never pauses.
    pub fn new(min_share: f64) -> Self {
        let pauses = TIME_SLICE.as_secs_f64() * (1.0 / min_share - 1.0);
        let max_pause = Duration::try_from_secs_f64(pauses.max(0.0)).map_or(u64::MAX, micros);
        let shared = Shared {
            max_pause,
            created: Instant::now(),
            requests: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            slice_until: AtomicU64::new(0),
            poller: Mutex::new(Schedule {
                next_slice: max_pause,
                resumed: 0,
            }),
            paused: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Puts a request into the foreground.
    pub fn enter(&self) -> ForegroundRequest {
        self.shared.requests.fetch_add(1, SeqCst);
        ForegroundRequest(self.shared.clone())
    }

    /// Keeps the background running for a caller that waits for it.
    pub fn boost(&self) -> Boost {
        self.shared.waiting.fetch_add(1, SeqCst);
        Boost(self.shared.clone())
    }

    /// Blocks a background thread while it has to pause. Call it often, with no lock held.
    pub fn yield_to_requests(&self) {
        if self.shared.must_pause() {
            self.shared.pause();
        }
    }

    /// How long the background has paused so far.
    pub fn paused(&self) -> Duration {
        Duration::from_micros(self.shared.paused.load(SeqCst))
    }
}

impl Shared {
    /// Microseconds after `created`.
    fn now(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn must_pause(&self) -> bool {
        let busy = self.requests.load(SeqCst) > 0;
        let idle_since = self.idle_since.load(SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            return false;
        }
        let now = self.now();
        let recent = now < idle_since + micros(GRACE);
        (busy || recent) && now >= self.slice_until.load(SeqCst)
    }

    fn pause(&self) {
        let mut schedule = self.poller.lock().unwrap_or_else(PoisonError::into_inner);
        let began = self.now();
        if self.must_pause() && began - schedule.resumed >= micros(TIME_SLICE) {
            schedule.next_slice = began.saturating_add(self.max_pause);
        }
        while self.must_pause() {
            let now = self.now();
            if now >= schedule.next_slice {
                let end = now + micros(TIME_SLICE);
                self.slice_until.store(end, SeqCst);
                schedule.next_slice = end.saturating_add(self.max_pause);
                break;
            }
            thread::sleep(GRACE);
        }
        schedule.resumed = self.now();
        self.paused.fetch_add(schedule.resumed - began, SeqCst);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for ForegroundRequest {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), SeqCst);
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

impl Drop for Boost {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

    use super::*;

    /// Longer than any pause that a test waits for the end of, on a busy machine too.
    const AT_LAST: Duration = Duration::from_secs(60);
    /// Long enough for a thread that does not pause to say so, as a rule: too short a time lets a fault pass, and makes no test fail.
    const NOT_YET: Duration = Duration::from_millis(100);

    /// A thread that gives way and then says so.
    fn background(foreground: &Foreground) -> Receiver<()> {
        let (done, told) = mpsc::channel();
        let foreground = foreground.clone();
        thread::spawn(move || {
            foreground.yield_to_requests();
            done.send(()).unwrap();
        });
        told
    }

    #[test]
    fn the_background_pauses_until_the_last_request_has_ended() {
        let foreground = Foreground::new(0.0);
        assert_eq!(background(&foreground).recv_timeout(AT_LAST), Ok(()));
        let (first, second) = (foreground.enter(), foreground.enter());
        let told = background(&foreground);
        let not_yet = Err(RecvTimeoutError::Timeout);
        assert_eq!(told.recv_timeout(NOT_YET), not_yet);
        drop(first);
        assert_eq!(told.recv_timeout(NOT_YET), not_yet);
        drop(second);
        assert_eq!(told.recv_timeout(AT_LAST), Ok(()));
        assert!(foreground.paused() >= GRACE);
    }

    #[test]
    fn a_boosted_background_does_not_pause() {
        let foreground = Foreground::new(0.0);
        let _request = foreground.enter();
        let told = background(&foreground);
        assert_eq!(told.recv_timeout(NOT_YET), Err(RecvTimeoutError::Timeout));
        let boost = foreground.boost();
        assert_eq!(told.recv_timeout(AT_LAST), Ok(()));
        drop(boost);
        let told = background(&foreground);
        assert_eq!(told.recv_timeout(NOT_YET), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn the_background_has_its_share_beside_requests_without_end() {
        let began = Instant::now();
        let (half, all) = (Foreground::new(0.5), Foreground::new(1.0));
        let (_request, _other) = (half.enter(), all.enter());
        assert_eq!(background(&half).recv_timeout(AT_LAST), Ok(()));
        // Its first slice comes after one of the requests, however late its thread begins.
        assert!(began.elapsed() >= TIME_SLICE);
        assert_eq!(background(&all).recv_timeout(AT_LAST), Ok(()));
    }

    #[test]
    fn gaps_too_short_to_compute_in_do_not_cost_the_background_its_share() {
        let foreground = Foreground::new(0.25);
        let stop = Arc::new(AtomicUsize::new(0));
        let background = {
            let (foreground, stop) = (foreground.clone(), stop.clone());
            thread::spawn(move || {
                while stop.load(SeqCst) == 0 {
                    foreground.yield_to_requests();
                }
            })
        };
        let limit = Instant::now() + AT_LAST;
        // No request lasts as long as the longest pause, 150 ms.
        while foreground.shared.slice_until.load(SeqCst) == 0 && Instant::now() < limit {
            let request = foreground.enter();
            thread::sleep(5 * GRACE);
            drop(request);
            thread::sleep(2 * GRACE);
        }
        stop.store(1, SeqCst);
        background.join().unwrap();
        assert!(foreground.shared.slice_until.load(SeqCst) > 0);
    }
}

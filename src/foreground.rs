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

/// How long nothing must be in the foreground before the background goes on: a client that sends one request after the other takes less
/// between them. It is also how often a paused thread looks.
const GRACE: Duration = Duration::from_millis(2);
/// How long the background may run before it pauses again, where it had to pause for as long as it ever does.
const TURN: Duration = Duration::from_millis(50);

/// What is in the foreground; cheap to clone.
#[derive(Clone, Debug)]
pub struct Foreground {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The longest pause; `None`: as long as anything is in the foreground.
    longest_pause: Option<Duration>,
    created: Instant,
    requests: AtomicUsize,
    /// Those that wait for the background.
    waiting: AtomicUsize,
    /// Microseconds after `created` at which the last request ended.
    idle_since: AtomicU64,
    /// Microseconds after `created` until which the background's turn lasts.
    turn_until: AtomicU64,
    /// Held by the one paused thread that looks; the others wait for it.
    looking: Mutex<()>,
    paused: AtomicU64,
}

/// Something in the foreground, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Shared>);

/// Somebody who waits for the background, which does not pause until this is dropped.
#[derive(Debug)]
pub struct Hurry(Arc<Shared>);

impl Foreground {
    /// The background has at least `least_share` (0 to 1) of the time, however much is in the foreground. With 1 it never pauses.
    pub fn new(least_share: f64) -> Self {
        let pauses = TURN.as_secs_f64() * (1.0 / least_share - 1.0);
        let shared = Shared {
            longest_pause: Duration::try_from_secs_f64(pauses.max(0.0)).ok(),
            created: Instant::now(),
            requests: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            turn_until: AtomicU64::new(0),
            looking: Mutex::new(()),
            paused: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Puts a request into the foreground.
    pub fn enter(&self) -> Busy {
        self.shared.requests.fetch_add(1, SeqCst);
        Busy(self.shared.clone())
    }

    /// Says that somebody waits for the background.
    pub fn hurry(&self) -> Hurry {
        self.shared.waiting.fetch_add(1, SeqCst);
        Hurry(self.shared.clone())
    }

    /// Blocks a background thread while it has to pause. Call it often, with no lock held.
    pub fn give_way(&self) {
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
        (busy || recent) && now >= self.turn_until.load(SeqCst)
    }

    fn pause(&self) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let began = self.now();
        while self.must_pause() {
            let pause = Duration::from_micros(self.now() - began);
            if self.longest_pause.is_some_and(|longest| pause >= longest) {
                self.turn_until.store(self.now() + micros(TURN), SeqCst);
                break;
            }
            thread::sleep(GRACE);
        }
        self.paused.fetch_add(self.now() - began, SeqCst);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), SeqCst);
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

impl Drop for Hurry {
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
            foreground.give_way();
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
    fn a_background_that_is_waited_for_does_not_pause() {
        let foreground = Foreground::new(0.0);
        let _request = foreground.enter();
        let told = background(&foreground);
        assert_eq!(told.recv_timeout(NOT_YET), Err(RecvTimeoutError::Timeout));
        let hurry = foreground.hurry();
        assert_eq!(told.recv_timeout(AT_LAST), Ok(()));
        drop(hurry);
        let told = background(&foreground);
        assert_eq!(told.recv_timeout(NOT_YET), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn the_background_has_its_share_beside_requests_without_end() {
        let (half, all) = (Foreground::new(0.5), Foreground::new(1.0));
        let (_request, _other) = (half.enter(), all.enter());
        assert_eq!(background(&half).recv_timeout(AT_LAST), Ok(()));
        assert!(half.paused() >= TURN);
        assert_eq!(background(&all).recv_timeout(AT_LAST), Ok(()));
    }
}

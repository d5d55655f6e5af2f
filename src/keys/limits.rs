//! What a key may still use: requests a minute and bytes of bodies a day. Both are counted as by a bucket that is full at the start and
//! refills evenly.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::KeysConfig;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes are counted in these units, so that a bucket's 32-bit count reaches far enough.
const UNIT: u64 = 1024;

/// What a key has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// `keys.requests_per_minute`; a request is free again after the time.
    Requests(Duration),
    /// `keys.bytes_per_day`; so many bytes are free again after the time.
    Bytes(Duration),
    /// The body is larger than all of `keys.bytes_per_day`.
    TooLarge,
}

/// The buckets of one key.
pub(super) struct Limits {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>,
    capacity: u32,
    /// Time in which one unit comes back.
    refill: Duration,
}

/// Why a bucket does not give.
enum Short {
    Wait(Duration),
    Never,
}

impl Limits {
    pub(super) fn new(config: &KeysConfig) -> Self {
        let units = config.bytes_per_day.div_ceil(UNIT);
        Self {
            requests: Bucket::new(config.requests_per_minute, MINUTE),
            bytes: Bucket::new(u32::try_from(units).unwrap_or(u32::MAX), DAY),
        }
    }

    pub(super) fn count_request(&self) -> Result<(), Exhausted> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        match requests.take(1) {
            Ok(_) => Ok(()),
            Err(Short::Wait(time)) => Err(Exhausted::Requests(time)),
            // Every bucket holds at least one.
            Err(Short::Never) => Err(Exhausted::Requests(MINUTE)),
        }
    }

    /// Takes the first unit of a body, and looks whether the rest of `declared` bytes is there. Nothing else is taken: a declared length
    /// need not come true.
    pub(super) fn begin_body(&self, declared: Option<u64>) -> Result<(), Exhausted> {
        let Some(bytes) = &self.bytes else {
            return Ok(());
        };
        let rest = declared
            .unwrap_or_default()
            .div_ceil(UNIT)
            .saturating_sub(1);
        if rest >= u64::from(bytes.capacity) {
            return Err(Exhausted::TooLarge);
        }
        let left = u64::from(bytes.take(1).map_err(Exhausted::bytes)?);
        match u32::try_from(rest.saturating_sub(left)) {
            Ok(0) => Ok(()),
            missing => Err(Exhausted::Bytes(bytes.refill * missing.unwrap_or(u32::MAX))),
        }
    }

    pub(super) fn count_bytes(&self, before: u64, after: u64) -> Result<(), Exhausted> {
        // The first unit was taken at the beginning.
        let units = |bytes: u64| bytes.div_ceil(UNIT).max(1);
        let more = u32::try_from(units(after) - units(before)).unwrap_or(u32::MAX);
        match (&self.bytes, NonZeroU32::new(more)) {
            (Some(bytes), Some(more)) => bytes.take(more.get()).map(drop).map_err(Exhausted::bytes),
            _ => Ok(()),
        }
    }
}

impl Exhausted {
    fn bytes(short: Short) -> Self {
        match short {
            Short::Wait(time) => Self::Bytes(time),
            Short::Never => Self::TooLarge,
        }
    }
}

impl Bucket {
    /// A full bucket that refills within `period`; `None` for a capacity of 0, which means no limit.
    fn new(capacity: u32, period: Duration) -> Option<Self> {
        let burst = NonZeroU32::new(capacity)?;
        let refill = period / capacity;
        let quota = Quota::with_period(refill)?.allow_burst(burst);
        Some(Self {
            limiter: RateLimiter::direct_with_clock(quota, MonotonicClock).with_middleware(),
            capacity,
            refill,
        })
    }

    /// Takes `units`, and returns how many are left.
    fn take(&self, units: u32) -> Result<u32, Short> {
        let Some(units) = NonZeroU32::new(units) else {
            return Ok(0);
        };
        match self.limiter.check_n(units) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(not_until)) => Err(Short::Wait(
                not_until.wait_time_from(self.limiter.clock().now()),
            )),
            Err(_) => Err(Short::Never),
        }
    }
}

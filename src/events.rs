//! What happens in the server, for who watches it: steps, evaluations, checkpoints, promotions, alarms. The newest events are kept in memory;
//! a watcher reads them at its own pace and misses those that went meanwhile.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// Most events that are kept.
const MAX_EVENTS: usize = 1024;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A row of the training series.
    Step,
    /// Training began, paused, waits or failed.
    Training,
    /// A checkpoint was begun, is complete, or failed.
    Checkpoint,
    /// A checkpoint was evaluated and judged.
    Evaluation,
    /// Another checkpoint serves.
    Promotion,
    /// Something needs a person.
    Alarm,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Step,
        Self::Training,
        Self::Checkpoint,
        Self::Evaluation,
        Self::Promotion,
        Self::Alarm,
    ];

    /// The name in the interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Training => "training",
            Self::Checkpoint => "checkpoint",
            Self::Evaluation => "evaluation",
            Self::Promotion => "promotion",
            Self::Alarm => "alarm",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place among the events of this process, from 1.
    pub number: u64,
    /// Its kind.
    pub kind: Kind,
    /// When it happened.
    pub at: Timestamp,
    /// An object that describes it.
    pub data: Value,
}

/// The newest events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// When the process started: numbers of another process mean other events.
    run: i64,
    newest: Mutex<VecDeque<Arc<Event>>>,
    /// Number of the newest event.
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                run: Timestamp::now().as_millisecond(),
                newest: Mutex::default(),
                last: watch::Sender::new(0),
            }),
        }
    }
}

impl Events {
    /// Adds an event. Never waits.
    pub fn publish(&self, kind: Kind, data: Value) {
        let mut newest = self.newest();
        let number = *self.shared.last.borrow() + 1;
        if newest.len() == MAX_EVENTS {
            newest.pop_front();
        }
        newest.push_back(Arc::new(Event {
            number,
            kind,
            at: Timestamp::now(),
            data,
        }));
        // With the lock held, so that numbers ascend.
        self.shared.last.send_replace(number);
    }

    /// A sign of this process, so that a number means the same event.
    pub fn run(&self) -> i64 {
        self.shared.run
    }

    /// A watcher of the events after `number`; 0: of all that are kept.
    pub fn watch(&self, number: u64) -> Watcher {
        Watcher {
            events: self.clone(),
            last: self.shared.last.subscribe(),
            seen: number,
        }
    }

    /// Number of the newest event; 0: there is none.
    pub fn last(&self) -> u64 {
        *self.shared.last.borrow()
    }

    /// The oldest event after `number` that is kept.
    fn after(&self, number: u64) -> Option<Arc<Event>> {
        let newest = self.newest();
        let first = newest.front()?.number;
        let index = (number + 1).saturating_sub(first);
        newest.get(usize::try_from(index).ok()?).cloned()
    }

    fn newest(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // Each change leaves a whole list.
        self.shared
            .newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events in order.
#[derive(Debug)]
pub struct Watcher {
    events: Events,
    last: watch::Receiver<u64>,
    seen: u64,
}

impl Watcher {
    /// Waits for the next event. Those that went before they were read are left out: the numbers have a gap.
    pub async fn next(&mut self) -> Arc<Event> {
        loop {
            self.last.mark_unchanged();
            if let Some(event) = self.events.after(self.seen) {
                self.seen = event.number;
                return event;
            }
            // The sender lives as long as `events`.
            let _ = self.last.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn publish(events: &Events, numbers: std::ops::RangeInclusive<usize>) {
        for number in numbers {
            events.publish(Kind::Step, json!({"step": number}));
        }
    }

    #[tokio::test]
    async fn a_watcher_reads_what_is_kept_and_then_what_comes() {
        let events = Events::default();
        publish(&events, 1..=3);
        let mut watcher = events.watch(1);
        assert_eq!(watcher.next().await.number, 2);
        assert_eq!(watcher.next().await.data, json!({"step": 3}));
        let (next, ()) = tokio::join!(watcher.next(), async { publish(&events, 4..=4) });
        assert_eq!(next.number, 4);
    }

    #[tokio::test]
    async fn the_oldest_go_and_a_slow_watcher_goes_on_with_what_is_left() {
        let events = Events::default();
        publish(&events, 1..=2);
        let mut watcher = events.watch(0);
        assert_eq!(watcher.next().await.number, 1);
        publish(&events, 3..=MAX_EVENTS + 10);
        assert_eq!(watcher.next().await.number, 11);
        assert_eq!(events.watch(0).next().await.number, 11);
    }
}

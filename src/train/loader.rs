//! Threads that read, decode and augment batches ahead of the trainer. Must never know: learning, which pairs come next.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    context::{Context, Fault},
    epoch::Position,
    pictures::Pictures,
};
use crate::{
    learn::Batch,
    types::{ImageKey, PairKey, Side, SlotKey},
};

/// A batch to load.
pub(super) struct Plan {
    /// Its step.
    pub(super) step: u64,
    /// Its pairs with their images.
    pub(super) pairs: Vec<(PairKey, [ImageKey; 2])>,
    /// Where the epoch stands once this batch is trained on: what a snapshot after that step says, however far ahead is planned.
    pub(super) after: Position,
}

/// A batch that was loaded; pairs with an image that is gone or broken are left out.
pub(super) struct Loaded {
    pub(super) batch: Batch,
    pub(super) after: Position,
}

struct Job {
    plan: Plan,
    answer: SyncSender<Result<Loaded, Fault>>,
}

/// Batches in the order in which they were planned, loaded by a few threads.
pub(super) struct Loader {
    jobs: Option<SyncSender<Job>>,
    ahead: VecDeque<Receiver<Result<Loaded, Fault>>>,
    most_ahead: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts the threads.
    pub(super) fn start(context: &Context, pictures: &Arc<Pictures>) -> Result<Self, Fault> {
        let run = &context.config.run;
        let most_ahead = run.prefetch.max(1);
        let (jobs, queue) = sync_channel::<Job>(most_ahead);
        let queue = Arc::new(Mutex::new(queue));
        let thread = |number| {
            let (queue, pictures) = (queue.clone(), pictures.clone());
            context.thread(&format!("kith-load-{number}"), move || {
                work(&queue, &pictures)
            })
        };
        Ok(Self {
            jobs: Some(jobs),
            ahead: VecDeque::with_capacity(most_ahead),
            most_ahead,
            threads: (0..run.loader_threads.max(1))
                .map(thread)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether another plan may be given.
    pub(super) fn has_room(&self) -> bool {
        self.ahead.len() < self.most_ahead
    }

    /// Gives a plan to the threads; does not wait as long as there is room.
    pub(super) fn plan(&mut self, plan: Plan) -> Result<(), Fault> {
        let (answer, loaded) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { plan, answer }).map_err(|_| ended())?;
        self.ahead.push_back(loaded);
        Ok(())
    }

    /// Waits for the oldest plan that was given; there must be one.
    pub(super) fn next(&mut self) -> Result<Loaded, Fault> {
        let oldest = self.ahead.pop_front().ok_or_else(ended)?;
        oldest.recv().map_err(|_| ended())?
    }
}

impl Drop for Loader {
    /// The threads end with the batch they are at.
    fn drop(&mut self) {
        self.jobs = None;
        self.ahead.clear();
        for thread in self.threads.drain(..) {
            // One that panicked has said so by its missing answer.
            let _ = thread.join();
        }
    }
}

fn ended() -> Fault {
    Fault("a loader thread ended early".to_owned())
}

fn work(queue: &Mutex<Receiver<Job>>, pictures: &Pictures) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { plan, answer }) = job else {
            return;
        };
        // Nobody waits for it any more when the trainer has ended.
        let _ = answer.send(load(plan, pictures));
    }
}

fn load(plan: Plan, pictures: &Pictures) -> Result<Loaded, Fault> {
    let images: Vec<ImageKey> = plan.pairs.iter().flat_map(|(_, images)| *images).collect();
    let (found, era) = pictures.find(&images)?;
    let mut found = found.into_iter();
    let mut batch = Batch {
        step: plan.step,
        pairs: Vec::with_capacity(plan.pairs.len()),
        pixels: Vec::new(),
    };
    for (pair, _) in plan.pairs {
        let mut view = |side| {
            let found = found.next().ok_or_else(ended)?;
            let picture = pictures.open(found, era)?;
            let slot = SlotKey::new(pair, side);
            Ok::<_, Fault>(picture.map(|picture| pictures.view(&picture, plan.step, slot)))
        };
        let (anchor, positive) = (view(Side::Anchor)?, view(Side::Positive)?);
        if let (Some(anchor), Some(positive)) = (anchor, positive) {
            batch.pairs.push(pair);
            batch.pixels.extend(anchor);
            batch.pixels.extend(positive);
        }
    }
    Ok(Loaded {
        batch,
        after: plan.after,
    })
}

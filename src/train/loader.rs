//! Reads, decodes and augments batches ahead of the trainer.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rayon::{ThreadPool, prelude::*};

use super::{
    context::{Context, Fault},
    epoch::Position,
    pictures::{Found, Pictures},
};
use kith_learn::{Batch, CarriedViews, SharedView};
use kith_mcmc::{ImageKey, PairKey, Side, SlotKey};

/// A batch to load.
pub(super) struct Plan {
    /// Its step.
    pub(super) step: u64,
    /// Its pairs with their images.
    pub(super) pairs: Vec<(PairKey, [ImageKey; 2])>,
    /// Images outside of it that its step will probably want.
    pub(super) carried: Vec<ImageKey>,
    /// Where the epoch stands once this batch is trained on: what a snapshot after that step says, however far ahead is planned.
    pub(super) after: Position,
}

/// A batch that was loaded; pairs with an image that is gone or broken are left out.
pub(super) struct Loaded {
    pub(super) batch: Batch,
    /// The views of the plan's carried images that could be made.
    pub(super) carried: HashMap<ImageKey, SharedView>,
    pub(super) after: Position,
}

struct Job {
    plan: Plan,
    answer: SyncSender<Result<Loaded, Fault>>,
}

/// Batches in the order in which they were planned, each loaded by all of the loader's threads.
pub(super) struct Loader {
    jobs: Option<SyncSender<Job>>,
    ahead: VecDeque<Receiver<Result<Loaded, Fault>>>,
    most_ahead: usize,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts the threads.
    pub(super) fn start(context: &Context, pictures: &Arc<Pictures>) -> Result<Self, Fault> {
        let run = &context.config.run;
        let most_ahead = run.prefetch.max(1);
        let (jobs, queue) = sync_channel::<Job>(most_ahead);
        let pool = context.pool("kith-load", run.loader_threads.max(1))?;
        let pictures = pictures.clone();
        let thread = context.thread("kith-loader", move || work(&queue, &pool, &pictures))?;
        Ok(Self {
            jobs: Some(jobs),
            ahead: VecDeque::with_capacity(most_ahead),
            most_ahead,
            thread: Some(thread),
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

    /// Forgets all plans that were given: what comes next is planned anew.
    pub(super) fn clear(&mut self) {
        self.ahead.clear();
    }
}

impl Drop for Loader {
    /// The threads end with the batch they are at.
    fn drop(&mut self) {
        self.jobs = None;
        self.ahead.clear();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so by its missing answer.
            let _ = thread.join();
        }
    }
}

fn ended() -> Fault {
    Fault::broken("the loader ended early")
}

fn work(queue: &Receiver<Job>, pool: &ThreadPool, pictures: &Pictures) {
    for Job { plan, answer } in queue {
        // Nobody waits for it any more when the trainer has ended.
        let _ = answer.send(pool.install(|| load(plan, pictures)));
    }
}

fn load(plan: Plan, pictures: &Pictures) -> Result<Loaded, Fault> {
    let Plan {
        step,
        pairs,
        carried,
        after,
    } = plan;
    let images: Vec<ImageKey> = pairs.iter().flat_map(|(_, images)| *images).collect();
    let (found, era) = pictures.find(&images)?;
    let sides = |(pair, _): &(PairKey, [ImageKey; 2])| {
        [Side::Anchor, Side::Positive].map(|side| SlotKey::new(*pair, side))
    };
    let slots: Vec<SlotKey> = pairs.iter().flat_map(sides).collect();
    let view = |(found, slot): (Found, &SlotKey)| {
        let picture = pictures.open(found, era)?;
        Ok(picture.map(|picture| pictures.view(&picture, step, *slot)))
    };
    let views = found.into_par_iter().zip(&slots).map(view);
    let views = views.collect::<Result<Vec<Option<Vec<f32>>>, Fault>>()?;

    let mut usable = Vec::with_capacity(pairs.len());
    let mut parts: Vec<&[f32]> = Vec::with_capacity(views.len());
    for ((pair, _), views) in pairs.iter().zip(views.chunks_exact(2)) {
        if let [Some(anchor), Some(positive)] = views {
            usable.push(*pair);
            parts.extend([&anchor[..], positive]);
        }
    }
    let others = carried.iter().zip(pictures.views(step, &carried));
    Ok(Loaded {
        batch: Batch {
            step,
            pairs: usable,
            pixels: parts.concat(),
        },
        carried: others
            .filter_map(|(image, view)| Some((*image, view?)))
            .collect(),
        after,
    })
}

/// Views that were loaded ahead, and, of images that were not, those of `rest`.
pub(super) struct Ahead<'a> {
    pub(super) carried: &'a HashMap<ImageKey, SharedView>,
    pub(super) rest: &'a (dyn CarriedViews + Sync),
}

impl CarriedViews for Ahead<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>> {
        let missing: Vec<ImageKey> = (images.iter().copied())
            .filter(|image| !self.carried.contains_key(image))
            .collect();
        let mut late = self.rest.views(step, &missing).into_iter();
        let view = |image| match self.carried.get(image) {
            Some(view) => Some(view.clone()),
            None => late.next().flatten(),
        };
        images.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Remembers what it was asked; image 9 is gone.
    #[derive(Default)]
    struct Rest(Mutex<Vec<u32>>);

    impl CarriedViews for Rest {
        fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>> {
            self.0
                .lock()
                .expect("one thread")
                .extend(images.iter().map(|image| image.0));
            let view = |image: &ImageKey| vec![image.0 as f32, step as f32].into();
            let there = |image: &&ImageKey| image.0 != 9;
            images
                .iter()
                .map(|image| Some(image).filter(there).map(view))
                .collect()
        }
    }

    #[test]
    fn only_what_was_not_loaded_ahead_is_made_late_and_all_keep_their_order() {
        let loaded = [3, 5].map(|image| (ImageKey(image), vec![-1.0].into()));
        let rest = Rest::default();
        let ahead = Ahead {
            carried: &loaded.into(),
            rest: &rest,
        };
        let views = ahead.views(7, &[4, 3, 9, 5, 6].map(ImageKey));
        let views: Vec<_> = views
            .into_iter()
            .map(|view| view.map(|view| view.to_vec()))
            .collect();
        let (early, late) = (Some(vec![-1.0]), |image| Some(vec![image, 7.0]));
        assert_eq!(views, [late(4.0), early.clone(), None, early, late(6.0)]);
        assert_eq!(rest.0.into_inner().expect("one thread"), [4, 9, 6]);
    }
}

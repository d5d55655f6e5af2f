//! Loads batches ahead of the trainer: reads, decodes and augments their images on threads of its own.

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
    context::Context,
    error::TrainFailure,
    image_loader::{ImageLoader, ImageSource},
    training_set::DrawPosition,
};
use kith_learn::{Batch, CarriedViews, SharedView, Unreadable};
use kith_mcmc::{ImageKey, PairKey, Recency, Side, SlotKey};

/// A batch to load.
pub(super) struct Plan {
    /// Its step.
    pub(super) step: u64,
    /// Its pairs with their images.
    pub(super) pairs: Vec<(PairKey, [ImageKey; 2])>,
    /// Images outside the batch that its step will probably use.
    pub(super) carried: Vec<ImageKey>,
    /// How much more often recent pairs were drawn.
    pub(super) recency: Recency,
    /// The draws' position after this batch: a snapshot after its step holds this one, however many batches are planned beyond it.
    pub(super) after: DrawPosition,
}

/// A loaded batch, without the pairs whose images could not be loaded.
pub(super) struct LoadedBatch {
    pub(super) batch: Batch,
    /// Views of the plan's carried images, those that could be made.
    pub(super) carried: HashMap<ImageKey, SharedView>,
    pub(super) after: DrawPosition,
}

type Answer = Result<LoadedBatch, TrainFailure>;

struct Job {
    plan: Plan,
    answer: SyncSender<Answer>,
}

/// Loads batches in the order in which they are planned. All threads of the loader work on one batch at a time.
pub(super) struct BatchLoader {
    jobs: Option<SyncSender<Job>>,
    ahead: VecDeque<Receiver<Answer>>,
    /// The answer to the oldest plan, if it was looked at before its turn.
    ready: Option<Answer>,
    max_ahead: usize,
    thread: Option<JoinHandle<()>>,
}

impl BatchLoader {
    /// Starts the threads.
    pub(super) fn start(
        context: &Context,
        images: &Arc<ImageLoader>,
    ) -> Result<Self, TrainFailure> {
        let run = &context.config.run;
        let max_ahead = run.prefetch.max(1);
        let (jobs, queue) = sync_channel::<Job>(max_ahead);
        let pool = context.pool("kith-load", run.loader_threads.max(1))?;
        let images = images.clone();
        let thread = context.thread("kith-loader", move || work(&queue, &pool, &images))?;
        Ok(Self {
            jobs: Some(jobs),
            ahead: VecDeque::with_capacity(max_ahead),
            ready: None,
            max_ahead,
            thread: Some(thread),
        })
    }

    /// Whether another plan may be given.
    pub(super) fn has_room(&self) -> bool {
        self.ahead.len() + usize::from(self.ready.is_some()) < self.max_ahead
    }

    /// Gives a plan to the threads; does not wait as long as there is room.
    pub(super) fn plan(&mut self, plan: Plan) -> Result<(), TrainFailure> {
        let (answer, loaded) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { plan, answer }).map_err(|_| ended())?;
        self.ahead.push_back(loaded);
        Ok(())
    }

    /// Waits for the oldest plan that was given; there must be one.
    pub(super) fn next(&mut self) -> Result<LoadedBatch, TrainFailure> {
        if let Some(ready) = self.ready.take() {
            return ready;
        }
        let oldest = self.ahead.pop_front().ok_or_else(ended)?;
        oldest.recv().map_err(|_| ended())?
    }

    /// Takes the answer to the oldest plan if it is there, for [`BatchLoader::upcoming`]. Does not wait.
    pub(super) fn look_ahead(&mut self) {
        if self.ready.is_none()
            && let Some(answer) = self.ahead.front().and_then(|oldest| oldest.try_recv().ok())
        {
            self.ahead.pop_front();
            self.ready = Some(answer);
        }
    }

    /// The batch that [`BatchLoader::next`] returns next, if [`BatchLoader::look_ahead`] found it loaded.
    pub(super) fn upcoming(&self) -> Option<&LoadedBatch> {
        self.ready.as_ref()?.as_ref().ok()
    }

    /// Drops all plans that were given.
    pub(super) fn clear(&mut self) {
        self.ready = None;
        self.ahead.clear();
    }
}

impl Drop for BatchLoader {
    /// Ends the threads after the batch they work on.
    fn drop(&mut self) {
        self.jobs = None;
        self.ahead.clear();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so by its missing answer.
            let _ = thread.join();
        }
    }
}

fn ended() -> TrainFailure {
    TrainFailure::broken("the loader ended early")
}

fn work(queue: &Receiver<Job>, pool: &ThreadPool, images: &ImageLoader) {
    for Job { plan, answer } in queue {
        // Nobody waits for it any more when the trainer has ended.
        let _ = answer.send(pool.install(|| load(plan, images)));
    }
}

fn load(plan: Plan, loader: &ImageLoader) -> Result<LoadedBatch, TrainFailure> {
    let Plan {
        step,
        pairs,
        carried,
        recency,
        after,
    } = plan;
    let images: Vec<ImageKey> = pairs.iter().flat_map(|(_, images)| *images).collect();
    let (found, generation) = loader.find(&images)?;
    let sides = |(pair, _): &(PairKey, [ImageKey; 2])| {
        [Side::Anchor, Side::Positive].map(|side| SlotKey::new(*pair, side))
    };
    let slots: Vec<SlotKey> = pairs.iter().flat_map(sides).collect();
    let view = |(source, slot): (ImageSource, &SlotKey)| {
        let image = loader.open(source, generation)?;
        Ok(image.map(|image| loader.view(&image, step, *slot)))
    };
    let views = found.into_par_iter().zip(&slots).map(view);
    let views = views.collect::<Result<Vec<Option<Vec<f32>>>, TrainFailure>>()?;

    let mut usable = Vec::with_capacity(pairs.len());
    let mut parts: Vec<&[f32]> = Vec::with_capacity(views.len());
    for ((pair, _), views) in pairs.iter().zip(views.chunks_exact(2)) {
        if let [Some(anchor), Some(positive)] = views {
            usable.push(*pair);
            parts.extend([&anchor[..], positive]);
        }
    }
    let others = carried.iter().zip(loader.views(step, &carried)?);
    Ok(LoadedBatch {
        batch: Batch {
            step,
            pairs: usable,
            recency,
            side: loader.side(step),
            pixels: parts.concat(),
        },
        carried: others
            .filter_map(|(image, view)| Some((*image, view?)))
            .collect(),
        after,
    })
}

/// Views that were loaded ahead. Other images' views come from `fallback`, if there is one.
pub(super) struct PrefetchedViews<'a> {
    pub(super) carried: &'a HashMap<ImageKey, SharedView>,
    pub(super) fallback: Option<&'a (dyn CarriedViews + Sync)>,
}

impl CarriedViews for PrefetchedViews<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let missing: Vec<ImageKey> = (images.iter().copied())
            .filter(|image| !self.carried.contains_key(image))
            .collect();
        let late = self.fallback.map(|fallback| fallback.views(step, &missing));
        let mut late = late.transpose()?.into_iter().flatten();
        let view = |image| match self.carried.get(image) {
            Some(view) => Some(view.clone()),
            None => late.next().flatten(),
        };
        Ok(images.iter().map(view).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{super::epoch::Position, *};

    /// Remembers what it was asked; image 9 is gone.
    #[derive(Default)]
    struct Rest(Mutex<Vec<u32>>);

    impl CarriedViews for Rest {
        fn views(
            &self,
            step: u64,
            images: &[ImageKey],
        ) -> Result<Vec<Option<SharedView>>, Unreadable> {
            self.0
                .lock()
                .expect("one thread")
                .extend(images.iter().map(|image| image.0));
            let view = |image: &ImageKey| vec![image.0 as f32, step as f32].into();
            let there = |image: &&ImageKey| image.0 != 9;
            let found = |image| Some(image).filter(there).map(view);
            Ok(images.iter().map(found).collect())
        }
    }

    /// A loader without threads whose plans are answered: the batches of `steps`, and one that is not loaded yet.
    fn loader(steps: std::ops::Range<u64>) -> (BatchLoader, SyncSender<Answer>) {
        let mut ahead: VecDeque<Receiver<Answer>> = steps
            .clone()
            .map(|step| {
                let (answer, loaded) = sync_channel(1);
                answer.send(Ok(batch(step))).expect("room for one");
                loaded
            })
            .collect();
        let (late, loaded) = sync_channel(1);
        ahead.push_back(loaded);
        let max_ahead = ahead.len();
        let loader = BatchLoader {
            jobs: None,
            ahead,
            ready: None,
            max_ahead,
            thread: None,
        };
        (loader, late)
    }

    fn batch(step: u64) -> LoadedBatch {
        LoadedBatch {
            batch: Batch {
                step,
                pairs: Vec::new(),
                recency: Recency::NONE,
                side: 32,
                pixels: Vec::new(),
            },
            carried: HashMap::new(),
            after: DrawPosition {
                all: Position {
                    epoch: 0,
                    cursor: None,
                },
                recent: None,
            },
        }
    }

    #[test]
    fn a_batch_that_was_looked_at_is_still_the_next() {
        let (mut loader, late) = loader(3..5);
        assert!(loader.upcoming().is_none(), "not looked for yet");
        for step in [3, 4] {
            for _ in 0..2 {
                loader.look_ahead();
                let upcoming = loader.upcoming().expect("it is loaded");
                assert_eq!(upcoming.batch.step, step);
            }
            assert_eq!(loader.has_room(), step == 4);
            assert_eq!(loader.next().expect("a batch").batch.step, step);
        }
        loader.look_ahead();
        assert!(loader.upcoming().is_none(), "nobody waits for it");
        late.send(Ok(batch(5))).expect("room for one");
        loader.look_ahead();
        assert!(loader.upcoming().is_some());
        loader.clear();
        assert!(loader.upcoming().is_none());
        assert!(loader.next().is_err(), "no plan is left");
    }

    #[test]
    fn only_what_was_not_loaded_ahead_is_made_late_and_all_keep_their_order() {
        let loaded = [3, 5].map(|image| (ImageKey(image), vec![-1.0].into()));
        let rest = Rest::default();
        let ahead = PrefetchedViews {
            carried: &loaded.into(),
            fallback: Some(&rest),
        };
        let views = ahead.views(7, &[4, 3, 9, 5, 6].map(ImageKey)).unwrap();
        let views: Vec<_> = views
            .into_iter()
            .map(|view| view.map(|view| view.to_vec()))
            .collect();
        let (early, late) = (Some(vec![-1.0]), |image| Some(vec![image, 7.0]));
        assert_eq!(views, [late(4.0), early.clone(), None, early, late(6.0)]);
        let carried = ahead.carried;
        let alone = PrefetchedViews {
            carried,
            fallback: None,
        };
        let views = alone.views(7, &[4, 3].map(ImageKey)).unwrap();
        assert!(views[0].is_none() && views[1].is_some());
        assert_eq!(rest.0.into_inner().expect("one thread"), [4, 9, 6]);
    }
}

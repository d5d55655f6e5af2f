//! The thread that turns a copy of the trainer's state into a checkpoint, and has it judged.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    context::{Context, Fault},
    judge::Judge,
};
use crate::checkpoint::{Label, Snapshot};
use kith_nn::NamedArray;

/// A checkpoint to write, or to judge if it is written already.
pub(super) struct Job {
    pub(super) label: Label,
    pub(super) step: u64,
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// Which stretch of training it comes from.
    pub(super) lineage: u64,
}

/// Handle to the thread: one job in work, one waiting.
pub(super) struct Snapshotter {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: AtomicUsize,
    hurry: AtomicBool,
    lost: AtomicBool,
    /// Why the newest snapshot could not be written, if it could not.
    unsaved: Mutex<Option<String>>,
}

impl Snapshotter {
    pub(super) fn start(context: &Arc<Context>) -> Result<Self, Fault> {
        let (jobs, queue) = sync_channel(1);
        let shared = Arc::<Shared>::default();
        let judge = Judge::new(context.clone())?;
        let writer = Writer {
            context: context.clone(),
            judge,
            shared: shared.clone(),
        };
        let thread = context.thread("kith-snapshot", move || writer.work(&queue))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            shared,
        })
    }

    /// Whether nothing is in work nor waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire) == 0
    }

    /// Whether [`Snapshotter::submit`] would not wait.
    pub(super) fn has_room(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire) < 2
    }

    /// Whether a checkpoint could not be written since the last time this was asked.
    pub(super) fn lost_one(&self) -> bool {
        self.shared.lost.swap(false, Ordering::AcqRel)
    }

    /// Gives a job to the thread.
    pub(super) fn submit(&self, job: Job) -> Result<(), Fault> {
        let ended = || Fault::broken("the snapshot thread ended early");
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())
    }

    /// The end is near: what is written still counts, judging can wait for another day.
    pub(super) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Release);
    }
}

impl Snapshotter {
    /// Writes what was given, and ends. Why the last snapshot is not there, if it is not.
    pub(super) fn end(self) -> Option<String> {
        let shared = self.shared.clone();
        drop(self);
        let unsaved = shared.unsaved.lock();
        unsaved.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Snapshotter {
    /// Writes what was given, and ends.
    fn drop(&mut self) {
        self.hurry();
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the snapshot thread panicked");
        }
    }
}

impl Shared {
    fn note_unsaved(&self, why: Option<String>) {
        *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

struct Writer {
    context: Arc<Context>,
    judge: Judge,
    shared: Arc<Shared>,
}

impl Writer {
    fn work(&self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            let (id, step) = (job.label.id, job.step);
            let done = catch_unwind(AssertUnwindSafe(|| self.take(job)));
            let failure = match done {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault.to_string()),
                Err(panic) => Some(super::supervisor::message(&*panic)),
            };
            if let Some(error) = failure {
                tracing::error!(checkpoint = %id, step, error, "snapshot failed");
                self.context
                    .board
                    .update(|status| status.last_error = Some(format!("snapshot {id}: {error}")));
            }
            self.context.board.note_written();
            self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn take(&self, mut job: Job) -> Result<(), Fault> {
        if let Some(snapshot) = job.snapshot.take() {
            let written = self.write(&job, *snapshot);
            let why = written.as_ref().err().map(ToString::to_string);
            self.shared.note_unsaved(why);
            written.inspect_err(|_| self.shared.lost.store(true, Ordering::Release))?;
            self.context.board.note_written();
        }
        let hurry = || self.shared.hurry.load(Ordering::Acquire);
        self.judge.judge(&job, &|| !hurry())
    }

    fn write(&self, job: &Job, snapshot: Snapshot) -> Result<(), Fault> {
        let context = &self.context;
        let id = job.label.id;
        if !snapshot.model.iter().all(NamedArray::is_finite) {
            let reason = "the weights are not finite";
            context.wait(context.db.fail_checkpoint(id, reason))?;
            return Err(Fault::broken(reason));
        }
        let written = context.wait(context.checkpoints.write(&job.label, snapshot));
        let row = written?;
        tracing::info!(checkpoint = %id, step = row.step, bytes = row.bytes, "snapshot written");
        Ok(())
    }
}

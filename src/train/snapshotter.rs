//! The thread that writes a copy of the trainer's state as a checkpoint and has it judged.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    context::Context,
    error::{TrainFailure, WriteFailure},
    head::HeadFit,
    judge::Judge,
    snapshot_job::SnapshotJob,
    status::TrainingState,
};
use crate::{
    checkpoint::{CheckpointError, Snapshot},
    db::{CheckpointStatus, DbError},
    types::CheckpointId,
};
use kith_nn::NamedArray;
use rayon::ThreadPool;

/// Handle to the snapshot thread, which works on one job while another waits.
pub(super) struct Snapshotter {
    jobs: Option<SyncSender<SnapshotJob>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: AtomicUsize,
    shutdown: AtomicBool,
    /// Number of trained pairs at the newest snapshot before those that could not be written, if there are any and none was written after them.
    lost: Mutex<Option<usize>>,
    /// Why the newest snapshot could not be written, if it could not.
    unsaved: Mutex<Option<String>>,
}

impl Snapshotter {
    pub(super) fn start(context: &Arc<Context>) -> Result<Self, TrainFailure> {
        let (jobs, queue) = sync_channel(1);
        let shared = Arc::<Shared>::default();
        // One thread: what happens to snapshots goes on beside training.
        let pool = Arc::new(context.pool("kith-snapshot", 1)?);
        let writer = Writer {
            context: context.clone(),
            judge: Judge::new(context.clone(), pool.clone()),
            pool,
            shared: shared.clone(),
        };
        let thread = context.thread("kith-snapshot", move || writer.work(&queue))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            shared,
        })
    }

    /// Whether no job is in work or waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire) == 0
    }

    /// Whether [`Snapshotter::submit`] returns at once.
    pub(super) fn has_room(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire) < 2
    }

    /// If checkpoints could not be written since the last time this was asked, and none was written after them: the number of trained pairs at the
    /// newest before them.
    pub(super) fn take_lost(&self) -> Option<usize> {
        self.shared.lost().take()
    }

    /// Gives a job to the thread.
    pub(super) fn submit(&self, job: SnapshotJob) -> Result<(), TrainFailure> {
        let ended = || TrainFailure::broken("the snapshot thread ended early");
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())
    }

    /// Lets the thread finish writing and leave off judging: the next start judges what is left.
    pub(super) fn request_shutdown(&self) {
        self.shared.shutdown.store(true, Ordering::Release);
    }

    /// Waits until the snapshots that were submitted are written. Returns why the newest one could not be written, if it could not.
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
        self.request_shutdown();
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the snapshot thread panicked");
        }
    }
}

impl Shared {
    fn lost(&self) -> MutexGuard<'_, Option<usize>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unsaved(&self, why: Option<String>) {
        *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

struct Writer {
    context: Arc<Context>,
    judge: Judge,
    pool: Arc<ThreadPool>,
    shared: Arc<Shared>,
}

impl Writer {
    fn work(&self, queue: &Receiver<SnapshotJob>) {
        while let Ok(job) = queue.recv() {
            let (id, step) = (job.label.id, job.step);
            let done = catch_unwind(AssertUnwindSafe(|| self.process(job)));
            let failure = match done {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure.to_string()),
                Err(panic) => Some(self.panicked(id, &TrainFailure::from_panic(&*panic))),
            };
            if let Some(error) = failure {
                tracing::error!(checkpoint = %id, step, error, "snapshot failed");
                self.context
                    .status
                    .update(|status| status.last_error = Some(format!("snapshot {id}: {error}")));
            }
            self.context.status.notify_written();
            if catch_unwind(AssertUnwindSafe(|| self.prune())).is_err() {
                tracing::error!("old checkpoints could not be removed");
            }
            self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Removes what is kept no longer, also where nothing was judged or written. A stop must be quick: the next run does it.
    fn prune(&self) {
        if self.shared.shutdown.load(Ordering::Acquire) {
            return;
        }
        match self.context.wait(self.context.checkpoints.prune()) {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::debug!(checkpoints = gone.len(), "pruned"),
            Err(error) => {
                tracing::warn!(%error, "old checkpoints are kept until the next is written")
            }
        }
    }

    /// Notes a panic. One while writing leaves a row that says "writing", which becomes one that failed. Returns the reason.
    fn panicked(&self, id: CheckpointId, failure: &TrainFailure) -> String {
        let (context, reason) = (&self.context, failure.to_string());
        let failed = context.wait(async {
            let row = context.db.checkpoint(id).await?;
            if row.is_some_and(|row| row.status == CheckpointStatus::Writing) {
                context.db.fail_checkpoint(id, &reason).await?;
                context.status.push_unwritten(id, WriteFailure::Other);
            }
            Ok::<_, DbError>(())
        });
        if let Err(error) = failed {
            tracing::error!(checkpoint = %id, %error, "its row may still say that it is being written");
        }
        reason
    }

    fn process(&self, mut job: SnapshotJob) -> Result<(), TrainFailure> {
        let keep_going = || !self.shared.shutdown.load(Ordering::Acquire);
        if let Some(mut snapshot) = job.snapshot.take() {
            let failed = self.fit_head(&mut job, &mut snapshot, &keep_going).is_err();
            let cut_off = failed || !keep_going();
            if job.only_to_fit && cut_off && !snapshot.is_fitted() && self.withdraw(&job)? {
                return Ok(());
            }
            let written = self.write(&job, *snapshot);
            let why = written.as_ref().err().map(ToString::to_string);
            self.shared.set_unsaved(why);
            if let Err(error) = written {
                let id = job.label.id;
                self.context.status.push_unwritten(id, (&error).into());
                let mut lost = self.shared.lost();
                *lost = Some(lost.map_or(job.pairs_before, |pairs| pairs.min(job.pairs_before)));
                return Err(error.into());
            }
            *self.shared.lost() = None;
            self.forgive(&job);
            self.context.status.notify_written();
        }
        if job.is_judged {
            self.judge.judge(&job, &keep_going)
        } else {
            Ok(())
        }
    }

    /// Takes the last error back once a snapshot is written that was taken after it. What a roll-back went back to is written at once, and shows nothing yet.
    fn forgive(&self, job: &SnapshotJob) {
        if job.is_restored {
            return;
        }
        self.context.status.update(|status| {
            let failed = status.state == TrainingState::Failed;
            if !failed && status.last_error == job.last_error {
                status.last_error = None;
            }
        });
    }

    /// Gives up a snapshot that was to be fitted and is not, unless a caller was promised it or the one that it is a copy of has gone: the next start
    /// tries again. Returns whether it did.
    fn withdraw(&self, job: &SnapshotJob) -> Result<bool, TrainFailure> {
        let (id, db) = (job.label.id, &self.context.db);
        self.context.wait(async {
            let promised = db.checkpoint(id).await?.is_some_and(|row| row.kept);
            let original = match job.label.parent {
                Some(parent) => db.checkpoint(parent).await?,
                None => None,
            };
            let stays = original.is_some_and(|row| row.status == CheckpointStatus::Complete);
            if promised || !stays {
                return Ok(false);
            }
            db.fail_checkpoint(
                id,
                "its projection could not be fitted before a stop, or at all",
            )
            .await?;
            Ok(true)
        })
    }

    /// Fits the head of the snapshot. If that fails, the snapshot is as it was.
    fn fit_head(
        &self,
        job: &mut SnapshotJob,
        snapshot: &mut Snapshot,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), CheckpointError> {
        let fit = HeadFit {
            context: &self.context,
            pool: &self.pool,
            keep_going,
        };
        let range = fit.apply(snapshot).inspect_err(|error| {
            tracing::warn!(checkpoint = %job.label.id, %error, "the projection was not fitted");
        })?;
        job.range = range.or(job.range);
        Ok(())
    }

    fn write(&self, job: &SnapshotJob, snapshot: Snapshot) -> Result<(), CheckpointError> {
        let (id, context) = (job.label.id, &self.context);
        if !snapshot.model.iter().all(NamedArray::is_finite) {
            let reason = "the weights are not finite";
            context.wait(context.db.fail_checkpoint(id, reason))?;
            return Err(CheckpointError::NotFinite(id));
        }
        let written = context.checkpoints.write(&job.label, snapshot, job.range);
        let row = context.wait(written)?;
        tracing::info!(checkpoint = %id, step = row.step, bytes = row.bytes, "snapshot written");
        Ok(())
    }
}

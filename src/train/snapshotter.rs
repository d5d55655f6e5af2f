//! The thread that writes a copy of the trainer's state as a checkpoint and has it judged.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    backoff::Backoff,
    context::Context,
    error::{TrainFailure, WriteFailure},
    head::HeadFit,
    judge::Judge,
    snapshot_job::SnapshotJob,
    status::TrainingState,
};
use crate::{
    checkpoint::{CheckpointError, Snapshot},
    db::CheckpointStatus,
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

/// How far the work on a job has come.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Writing,
    Judging,
}

struct Writer {
    context: Arc<Context>,
    judge: Judge,
    pool: Arc<ThreadPool>,
    shared: Arc<Shared>,
}

impl Writer {
    fn work(&self, queue: &Receiver<SnapshotJob>) {
        let max_rest = self.context.config.run.max_rest();
        let mut backoff = Backoff::new(max_rest);
        // A checkpoint that a failing store kept from being judged: it is tried again, until a newer one takes its place.
        let mut unjudged: Option<SnapshotJob> = None;
        loop {
            let received = match &unjudged {
                None => queue.recv().map_err(RecvTimeoutError::from),
                Some(_) => queue.recv_timeout(backoff.next_rest()),
            };
            let mut job = match received {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    let Some(job) = unjudged.take() else { continue };
                    self.shared.pending.fetch_add(1, Ordering::AcqRel);
                    job
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match self.work_on(&mut job) {
                (Stage::Judging, Some(TrainFailure::Store(_))) => unjudged = Some(job),
                (Stage::Judging, _) => {
                    unjudged = None;
                    backoff = Backoff::new(max_rest);
                }
                (Stage::Writing, _) => {}
            }
            self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Does a job: how far it came, and what failed there, if anything did.
    fn work_on(&self, job: &mut SnapshotJob) -> (Stage, Option<TrainFailure>) {
        let (id, step, mut stage) = (job.label.id, job.step, Stage::Writing);
        let done = catch_unwind(AssertUnwindSafe(|| self.process(job, &mut stage)));
        let failure = match done {
            Ok(done) => done.err(),
            Err(panic) => {
                let failure = TrainFailure::from_panic(&*panic);
                self.panicked(job, stage, &failure);
                Some(failure)
            }
        };
        if let Some(failure) = &failure {
            let error = failure.to_string();
            tracing::error!(checkpoint = %id, step, error, "snapshot failed");
            job.last_error = Some(format!("snapshot {id}: {error}"));
            let last_error = job.last_error.clone();
            self.context
                .status
                .update(|status| status.last_error = last_error);
        }
        self.context.status.notify_written();
        if catch_unwind(AssertUnwindSafe(|| self.prune())).is_err() {
            tracing::error!("old checkpoints could not be removed");
        }
        (stage, failure)
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

    /// Notes a panic. One while writing leaves a row that says "writing", which becomes one that failed.
    fn panicked(&self, job: &SnapshotJob, stage: Stage, failure: &TrainFailure) {
        let (context, id, reason) = (&self.context, job.label.id, failure.to_string());
        let failed = context.wait(async {
            let row = context.db.checkpoint(id).await?;
            let is_unwritten = row.is_some_and(|row| row.status == CheckpointStatus::Writing);
            if is_unwritten {
                context.checkpoints.fail(&job.label, &reason).await?;
            }
            Ok::<_, CheckpointError>(is_unwritten)
        });
        let is_unwritten = failed.unwrap_or_else(|error| {
            tracing::error!(checkpoint = %id, %error, "its row may still say that it is being written");
            stage == Stage::Writing
        });
        if is_unwritten {
            self.note_unwritten(job, reason, WriteFailure::Other);
        }
    }

    /// Notes that the snapshot of `job` is not there, so that another is taken, and a stop says so.
    fn note_unwritten(&self, job: &SnapshotJob, why: String, failure: WriteFailure) {
        self.shared.set_unsaved(Some(why));
        self.context.status.push_unwritten(job.label.id, failure);
        let mut lost = self.shared.lost();
        *lost = Some(lost.map_or(job.pairs_before, |pairs| pairs.min(job.pairs_before)));
    }

    /// Writes the snapshot of `job`, if it holds one, and judges it. What is not written is not judged.
    fn process(&self, job: &mut SnapshotJob, stage: &mut Stage) -> Result<(), TrainFailure> {
        let keep_going = || !self.shared.shutdown.load(Ordering::Acquire);
        let snapshot = job.snapshot.take();
        let was_written = snapshot.is_none();
        if let Some(snapshot) = snapshot {
            let written = self.fit_and_write(job, snapshot, &keep_going);
            let written = written.inspect_err(|error| {
                self.note_unwritten(job, error.to_string(), error.into());
            });
            if !written? {
                return Ok(());
            }
        }
        if job.is_judged {
            *stage = Stage::Judging;
            self.judge.judge(job, &keep_going)?;
            if was_written {
                self.forgive(job);
            }
        }
        Ok(())
    }

    /// Writes the snapshot of `job`, with a fitted projection if that is wanted. `false`: it was given up.
    fn fit_and_write(
        &self,
        job: &mut SnapshotJob,
        mut snapshot: Box<Snapshot>,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, CheckpointError> {
        let failed = self.fit_head(job, &mut snapshot, keep_going).is_err();
        let cut_off = failed || !keep_going();
        if job.only_to_fit && cut_off && !snapshot.is_fitted() && self.withdraw(job)? {
            return Ok(false);
        }
        self.write(job, *snapshot)?;
        self.shared.set_unsaved(None);
        *self.shared.lost() = None;
        self.forgive(job);
        self.context.status.notify_written();
        Ok(true)
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
    fn withdraw(&self, job: &SnapshotJob) -> Result<bool, CheckpointError> {
        let Context {
            db, checkpoints, ..
        } = &*self.context;
        let id = job.label.id;
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
            let why = "its projection could not be fitted before a stop, or at all";
            checkpoints.fail(&job.label, why).await?;
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
            context.wait(context.checkpoints.fail(&job.label, reason))?;
            return Err(CheckpointError::NotFinite(id));
        }
        let written = context.checkpoints.write(&job.label, snapshot, job.range);
        let row = context.wait(written)?;
        tracing::info!(checkpoint = %id, step = row.step, bytes = row.bytes, "snapshot written");
        Ok(())
    }
}

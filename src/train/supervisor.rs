//! Keeps training alive: a run that panics or fails is reported and started again after a rest that doubles each time.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use rayon::ThreadPool;

use super::{
    TrainingState,
    context::{Context, Fault},
    control::Control,
    origin::Start,
    recovery::{self, Relapse},
    run::Run,
    snapshotter::Snapshotter,
    status::Board,
};
use crate::db::CheckpointStatus;

/// The first rest.
const FIRST_REST: Duration = Duration::from_secs(1);

/// How a run ended when it did not fail.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// It was told to stop.
    Stop,
    /// It must go on from a healthy checkpoint.
    Recover(Relapse),
}

/// What the next run starts from.
pub(super) enum Next {
    From(Box<Start>),
    Newest,
    Healthy(Relapse),
}

/// The trainer's thread.
pub(super) fn train(context: &Arc<Context>, pool: &ThreadPool, mut control: Control, start: Start) {
    let snapshotter = match Snapshotter::start(context) {
        Ok(snapshotter) => snapshotter,
        Err(error) => {
            tracing::error!(%error, "training cannot start");
            return context
                .board
                .update(|status| fail(status, error.to_string()));
        }
    };
    let mut lineage = 0;
    let most = Duration::from_secs(context.config.run.max_backoff_seconds.max(1));
    let mut backoff = Backoff::new(most);
    let next = Next::From(Box::new(start));
    supervise(
        &mut control,
        &context.board,
        &mut backoff,
        next,
        |control, next| {
            lineage += 1;
            let recovered = matches!(next, Next::Healthy(_));
            let start = begin(context, next)?;
            let mut run = Run::new(context, pool, &snapshotter, start, lineage)?;
            if recovered {
                run.announce_recovery();
            }
            run.drive(control)
        },
    );
    if let Some(why) = snapshotter.end() {
        context.board.note_unsaved(why);
    }
    context.board.update(|status| {
        status.state = TrainingState::Waiting;
        status.waiting_for = Some("the server is stopping".to_owned());
    });
    control.ended();
}

/// The state that a run starts from.
fn begin(context: &Context, next: Next) -> Result<Start, Fault> {
    match next {
        Next::From(start) => Ok(*start),
        Next::Newest => {
            let rows = context.wait(context.db.checkpoints())?;
            let complete = rows
                .iter()
                .filter(|row| row.status == CheckpointStatus::Complete);
            let ids: Vec<_> = complete.map(|row| row.id).collect();
            let found = context.wait(context.checkpoints.first_of(&ids))?;
            let nothing = || Fault::broken("no checkpoint can be read");
            let (id, snapshot) = found.ok_or_else(nothing)?;
            tracing::info!(checkpoint = %id, step = snapshot.trainer.step, "training again");
            Ok(Start {
                parent: Some(id),
                snapshot,
            })
        }
        Next::Healthy(relapse) => {
            let start = recovery::way_back(context, &relapse)?;
            let step = start.snapshot.trainer.step;
            let from = start.parent.map(|id| id.to_string());
            let from = from.as_deref().unwrap_or("fresh weights");
            tracing::warn!(
                why = relapse.why,
                from,
                step,
                rate_scale = relapse.rate_scale,
                tries = relapse.tries,
                "recovered"
            );
            context.board.update(|status| {
                status.recoveries += 1;
                status.last_error = Some(relapse.why);
                status.resumed_from = start.parent.or(status.resumed_from);
            });
            Ok(start)
        }
    }
}

/// Runs `body` again and again until it is told to stop.
fn supervise(
    control: &mut Control,
    board: &Board,
    backoff: &mut Backoff,
    mut next: Next,
    mut body: impl FnMut(&mut Control, Next) -> Result<End, Fault>,
) {
    while !control.stopping {
        // A recovery that could not even begin is still one.
        let again = match &next {
            Next::Healthy(relapse) => Next::Healthy(relapse.clone()),
            Next::From(_) | Next::Newest => Next::Newest,
        };
        let before = board.status().step;
        let ended = catch_unwind(AssertUnwindSafe(|| body(control, next)));
        let ended = ended.unwrap_or_else(|panic| Err(Fault::Broken(message(&*panic))));
        backoff.forgive(board.status().step.saturating_sub(before));
        match ended {
            Ok(End::Stop) => return,
            Ok(End::Recover(relapse)) => next = Next::Healthy(relapse),
            Err(fault) => {
                let (rest, error) = (backoff.next(), fault.to_string());
                if control.stopping {
                    board.note_unsaved(error.clone());
                }
                tracing::error!(error, rest_seconds = rest.as_secs(), "training failed");
                board.update(|status| fail(status, error));
                control.rest(rest);
                next = again;
            }
        }
    }
}

pub(super) fn fail(status: &mut super::TrainingStatus, error: String) {
    status.state = TrainingState::Failed;
    status.waiting_for = None;
    status.last_error = Some(error);
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", said.unwrap_or("no message"))
}

/// The rests between attempts: doubling from one second, forgotten once training went well for a while.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    most: Duration,
    /// Steps since the last failure.
    good: u64,
}

impl Backoff {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            next: FIRST_REST.min(most),
            most,
            good: 0,
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let rest = self.next;
        self.next = (2 * rest).min(self.most);
        self.good = 0;
        rest
    }

    /// Another `steps` steps went well: after enough of them, the next rest is a short one again.
    pub(super) fn forgive(&mut self, steps: u64) {
        const ENOUGH: u64 = 100;
        self.good += steps;
        if self.good >= ENOUGH {
            self.next = FIRST_REST.min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::train::control::{Command, QUEUE};

    #[test]
    fn rests_double_up_to_the_most_and_are_forgotten_after_good_steps() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let rests: Vec<u64> = (0..5).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 5, 5]);
        backoff.forgive(99);
        assert_eq!(backoff.next().as_secs(), 5);
        backoff.forgive(100);
        assert_eq!(backoff.next().as_secs(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_reported_and_tried_again_when_a_caller_asks() {
        let (commands, queue) = mpsc::channel(QUEUE);
        let board = Arc::new(Board::new("emc2".to_owned()));
        let mut control = Control::new(queue, tokio::runtime::Handle::current(), false);
        let thread = std::thread::spawn({
            let board = board.clone();
            move || {
                let mut attempts = 0;
                let mut backoff = Backoff::new(Duration::from_secs(3600));
                backoff.next = Duration::from_secs(3600);
                supervise(
                    &mut control,
                    &board,
                    &mut backoff,
                    Next::Newest,
                    |_, next| {
                        attempts += 1;
                        assert!(matches!(next, Next::Newest));
                        if attempts == 1 {
                            panic!("out of memory");
                        }
                        Ok(End::Stop)
                    },
                );
                attempts
            }
        });
        let (done, resting) = oneshot::channel();
        commands.send(Command::Rate(0.1, done)).await.unwrap();
        // Commands are answered in the rest only, so the failure has been reported by then.
        resting.await.unwrap();
        let status = board.status();
        assert_eq!(status.state, TrainingState::Failed);
        assert!(status.last_error.unwrap().contains("out of memory"));
        let (done, _resumed) = oneshot::channel();
        commands.send(Command::Pause(false, done)).await.unwrap();
        let attempts = tokio::task::spawn_blocking(move || thread.join().unwrap());
        assert_eq!(attempts.await.unwrap(), 2);
    }
}

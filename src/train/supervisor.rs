//! Keeps training alive: reports a run that panics or fails, and starts the next one after a rest that doubles each time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rayon::ThreadPool;

use super::{
    backoff::Backoff,
    context::Context,
    control::Control,
    error::TrainFailure,
    origin::Start,
    recovery::{self, Rollback},
    run::{End, Run},
    snapshotter::Snapshotter,
    status::{SharedStatus, TrainingState},
};
/// What the next run starts from.
pub(super) enum Next {
    From(Box<Start>),
    Newest,
    RolledBack(Rollback),
}

/// The body of the trainer's thread.
pub(super) fn train(context: &Arc<Context>, pool: &ThreadPool, mut control: Control, start: Start) {
    let snapshotter = match Snapshotter::start(context) {
        Ok(snapshotter) => snapshotter,
        Err(error) => {
            tracing::error!(%error, "training cannot start");
            return context
                .status
                .update(|status| status.fail(error.to_string()));
        }
    };
    let mut run_id = 0;
    let mut backoff = Backoff::new(context.config.run.max_rest());
    let next = Next::From(Box::new(start));
    supervise(
        &mut control,
        &context.status,
        &mut backoff,
        next,
        |control, next| {
            run_id += 1;
            let start = begin(context, pool, next)?;
            let mut run = Run::new(context, pool, &snapshotter, start, run_id)?;
            if let Some(why) = control.given_up.take() {
                run.rest_given_up(why);
            }
            run.drive(control)
        },
    );
    if let Some(why) = snapshotter.end() {
        context.status.set_unsaved(why);
    }
    context.status.update(|status| {
        status.state = TrainingState::Waiting;
        status.waiting_for = Some("the server is stopping".to_owned());
    });
    control.ended();
}

/// The state that a run starts from.
fn begin(context: &Context, pool: &ThreadPool, next: Next) -> Result<Start, TrainFailure> {
    match next {
        Next::From(start) => Ok(*start),
        Next::Newest => {
            let ids = context.wait(context.checkpoints.complete_ids())?;
            let found = context.wait(context.checkpoints.first_of(&ids))?;
            let nothing = || TrainFailure::broken("no checkpoint can be read");
            let (id, snapshot) = found.ok_or_else(nothing)?;
            tracing::info!(checkpoint = %id, step = snapshot.trainer.step, "training again");
            context
                .status
                .update(|status| status.resumed_from = Some(id));
            Ok(Start {
                parent: Some(id),
                snapshot,
                is_restored: false,
            })
        }
        Next::RolledBack(rollback) => {
            let start = recovery::rollback_start(context, pool, &rollback)?;
            let step = start.snapshot.trainer.step;
            let from = start.parent.map(|id| id.to_string());
            let from = from.as_deref().unwrap_or("fresh weights");
            tracing::warn!(
                why = rollback.why,
                from,
                step,
                rate_scale = rollback.rate_scale,
                tries = rollback.tries,
                "recovered"
            );
            context.status.update(|status| {
                status.recoveries += 1;
                status.last_error = Some(rollback.why);
                status.resumed_from = start.parent.or(status.resumed_from);
            });
            Ok(start)
        }
    }
}

/// Runs `body` again and again until it is told to stop.
fn supervise(
    control: &mut Control,
    status: &SharedStatus,
    backoff: &mut Backoff,
    mut next: Next,
    mut body: impl FnMut(&mut Control, Next) -> Result<End, TrainFailure>,
) {
    while !control.stopping {
        // A rollback that could not begin is still one.
        let again = match &next {
            Next::RolledBack(rollback) => Next::RolledBack(rollback.clone()),
            Next::From(_) | Next::Newest => Next::Newest,
        };
        let before = status.current().step;
        let ended = catch_unwind(AssertUnwindSafe(|| body(control, next)));
        let ended = ended.unwrap_or_else(|panic| Err(TrainFailure::from_panic(&*panic)));
        backoff.record_steps(status.current().step.saturating_sub(before));
        match ended {
            Ok(End::Stop) => return,
            Ok(End::RollBack(rollback)) => next = Next::RolledBack(rollback),
            Err(failure) => {
                let (rest, error) = (backoff.next_rest(), failure.to_string());
                if control.stopping {
                    status.set_unsaved(error.clone());
                }
                tracing::error!(error, rest_seconds = rest.as_secs(), "training failed");
                status.update(|status| status.fail(error));
                control.rest(rest);
                next = again;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::{
        db::TrainingChoices,
        events::Events,
        train::control::{COMMAND_QUEUE, Command},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_reported_and_tried_again_when_a_caller_asks() {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let status = Arc::new(SharedStatus::new("emc2".to_owned(), Events::default()));
        let mut control = Control::new(
            queue,
            tokio::runtime::Handle::current(),
            TrainingChoices::default(),
        );
        let thread = std::thread::spawn({
            let status = status.clone();
            move || {
                let mut attempts = 0;
                let mut backoff = Backoff::with_first(Duration::from_secs(3600));
                supervise(
                    &mut control,
                    &status,
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
        commands.send(Command::Rate(Some(0.1), done)).await.unwrap();
        // Commands are answered in the rest only, so the failure has been reported by then.
        resting.await.unwrap();
        let status = status.current();
        assert_eq!(status.state, TrainingState::Failed);
        assert!(status.last_error.unwrap().contains("out of memory"));
        let (done, _resumed) = oneshot::channel();
        commands.send(Command::Pause(false, done)).await.unwrap();
        let attempts = tokio::task::spawn_blocking(move || thread.join().unwrap());
        assert_eq!(attempts.await.unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_roll_back_that_could_not_begin_is_tried_again() {
        let (_commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let status = Arc::new(SharedStatus::new("emc2".to_owned(), Events::default()));
        let mut control = Control::new(
            queue,
            tokio::runtime::Handle::current(),
            TrainingChoices::default(),
        );
        let tried = std::thread::spawn(move || {
            let rollback = Rollback {
                why: "collapsed".to_owned(),
                rate_scale: 0.5,
                tries: 1,
            };
            let mut tried = Vec::new();
            let mut backoff = Backoff::with_first(Duration::ZERO);
            let body = |_: &mut Control, next: Next| {
                tried.push(matches!(&next, Next::RolledBack(found) if *found == rollback));
                match tried.len() {
                    1 => Ok(End::RollBack(rollback.clone())),
                    2 => Err(TrainFailure::broken("no store answers")),
                    _ => Ok(End::Stop),
                }
            };
            supervise(&mut control, &status, &mut backoff, Next::Newest, body);
            tried
        });
        let tried = tokio::task::spawn_blocking(move || tried.join().unwrap());
        assert_eq!(tried.await.unwrap(), [false, true, true]);
    }
}

//! The commands of callers, and those of their wishes that outlast a run.

use std::time::{Duration, Instant};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::error::TrainError;
use crate::{db::TrainingChoices, types::CheckpointId};

/// Commands that may wait for the next step boundary.
pub(super) const COMMAND_QUEUE: usize = 64;

/// One command of a caller.
#[derive(Debug)]
pub(super) enum Command {
    Pause(bool, oneshot::Sender<()>),
    Rate(Option<f32>, oneshot::Sender<()>),
    Snapshot(Request),
    Stop(oneshot::Sender<()>),
}

/// A snapshot that is asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) note: Option<String>,
    pub(super) answer: oneshot::Sender<Result<CheckpointId, TrainError>>,
}

/// The trainer's end of the command channel, with the state that commands have set.
#[derive(Debug)]
pub(super) struct Control {
    commands: mpsc::Receiver<Command>,
    runtime: Handle,
    pub(super) paused: bool,
    /// Learning rate that a caller has set.
    pub(super) rate: Option<f32>,
    /// Why training had given up when this process started.
    pub(super) given_up: Option<String>,
    /// Whether a caller has set the rate since the loop last applied commands.
    pub(super) rate_changed: bool,
    /// Whether a caller asked to resume, which also ends a rest after a failure.
    pub(super) resumed: bool,
    /// Snapshots that wait to be taken.
    pub(super) requests: Vec<Request>,
    pub(super) stopping: bool,
    /// Callers that wait until their command shows in the status.
    waiting: Vec<oneshot::Sender<()>>,
    /// Callers that wait for the end.
    stoppers: Vec<oneshot::Sender<()>>,
}

impl Control {
    pub(super) fn new(
        commands: mpsc::Receiver<Command>,
        runtime: Handle,
        choices: TrainingChoices,
    ) -> Self {
        if let Some(rate) = choices.learning_rate {
            tracing::info!(
                rate,
                "a learning rate that a caller has set goes before schedule.learning_rate"
            );
        }
        Self {
            commands,
            runtime,
            paused: choices.paused,
            rate: choices.learning_rate,
            given_up: choices.given_up,
            rate_changed: false,
            resumed: false,
            requests: Vec::new(),
            stopping: false,
            waiting: Vec::new(),
            stoppers: Vec::new(),
        }
    }

    /// Handles all commands that have arrived; does not wait.
    pub(super) fn drain_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                // Every handle is gone: nobody could ever stop it.
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    /// Waits for a command, at most for `timeout`, and handles it.
    pub(super) fn wait(&mut self, timeout: Duration) {
        let Self {
            runtime, commands, ..
        } = self;
        let next = runtime.block_on(async { tokio::time::timeout(timeout, commands.recv()).await });
        match next {
            Ok(Some(command)) => self.handle(command),
            Ok(None) => self.stopping = true,
            Err(_) => {}
        }
        self.drain_commands();
    }

    /// Rests after a failure until `rest` is over or a caller asks to resume or to stop. Requests for a snapshot are refused meanwhile.
    pub(super) fn rest(&mut self, rest: Duration) {
        let end = Instant::now() + rest;
        self.resumed = false;
        while !self.stopping && !self.resumed {
            for request in self.requests.drain(..) {
                let reason =
                    "training failed and rests before its next attempt: ask again when it runs";
                // The caller may have gone.
                let _ = request
                    .answer
                    .send(Err(TrainError::Unavailable(reason.to_owned())));
            }
            self.acknowledge();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.wait(left);
        }
    }

    /// Tells waiting callers that the status shows what they asked for.
    pub(super) fn acknowledge(&mut self) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(());
        }
    }

    /// Tells callers that all threads but this one have ended.
    pub(super) fn ended(mut self) {
        self.acknowledge();
        for stopper in self.stoppers.drain(..) {
            let _ = stopper.send(());
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Pause(paused, done) => {
                self.paused = paused;
                self.resumed |= !paused;
                self.waiting.push(done);
            }
            Command::Rate(rate, done) => {
                self.rate = rate;
                self.rate_changed = true;
                self.waiting.push(done);
            }
            Command::Snapshot(request) => self.requests.push(request),
            Command::Stop(done) => {
                self.stopping = true;
                self.stoppers.push(done);
            }
        }
    }
}

//! The loop between step boundaries: hear callers, follow the database, take snapshots, wait or step.
//! Must never know: how a step is computed, how a checkpoint is written.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use super::{
    TrainingState,
    context::{Context, Fault},
    control::{Control, Request},
    epoch::{Epoch, Position},
    feed::{Changes, Feed},
    loader::Loader,
    meter::Meter,
    origin::Start,
    pictures::Pictures,
    recovery::{self, Watch},
    snapshotter::{Job, Snapshotter},
    status::Alarm,
    supervisor::{End, Relapse},
    triggers::Triggers,
};
use crate::{
    checkpoint::{Evaluation, Label, Snapshot, TrainerState},
    learn::Learner,
    mcmc::{ChainTable, PairGraph},
    nn::{Encoder, Optimizer},
    types::{CheckpointId, PairKey, SlotKey},
};

/// Longest wait for a command while there is nothing to do: new pairs are noticed after it.
const IDLE: Duration = Duration::from_millis(100);

/// One stretch of training, from a checkpoint until it is stopped or fails.
pub(super) struct Run<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) pool: &'a ThreadPool,
    snapshotter: &'a Snapshotter,
    pub(super) learner: Learner,
    pub(super) state: TrainerState,
    pub(super) graph: PairGraph,
    pub(super) epoch: Epoch,
    pub(super) pictures: Arc<Pictures>,
    pub(super) loader: Loader,
    pub(super) meter: Meter,
    pub(super) watch: Watch,
    pub(super) triggers: Triggers,
    /// The next step to plan.
    pub(super) planned: u64,
    /// Skipped steps in a row, and batches in a row without two usable pairs.
    pub(super) skipped: u32,
    pub(super) unusable: u32,
    /// Why training stands still until a caller resumes it.
    pub(super) given_up: Option<String>,
    feed: Feed,
    parent: Option<CheckpointId>,
    lineage: u64,
}

impl<'a> Run<'a> {
    /// Builds everything anew from `start` and reads all trained pairs.
    pub(super) fn new(
        context: &'a Arc<Context>,
        pool: &'a ThreadPool,
        snapshotter: &'a Snapshotter,
        start: Start,
        lineage: u64,
    ) -> Result<Self, Fault> {
        let state = start.snapshot.trainer.clone();
        let learner = learner(context, start.snapshot)?;
        let pictures = Arc::new(Pictures::new(context.clone(), state.seed));
        let position = Position {
            epoch: state.epoch,
            cursor: state.cursor,
        };
        let mut run = Self {
            context,
            pool,
            snapshotter,
            learner,
            graph: PairGraph::default(),
            epoch: Epoch::new(state.seed, position),
            loader: Loader::start(context, &pictures)?,
            pictures,
            meter: Meter::new(),
            watch: Watch::default(),
            triggers: Triggers::new(&context.config.snapshots, state.step, Instant::now()),
            planned: state.step,
            skipped: 0,
            unusable: 0,
            given_up: None,
            feed: Feed::default(),
            parent: start.parent,
            lineage,
            state,
        };
        let all = run.feed.fill(context)?;
        run.apply(all);
        run.forget_strangers();
        run.look_back()?;
        Ok(run)
    }

    /// What follows a recovery must not be lost to a kill: its rate and, maybe, its fresh weights.
    pub(super) fn announce_recovery(&mut self) {
        self.triggers.force();
    }

    /// Trains until told to stop, or until it must go back.
    pub(super) fn drive(&mut self, control: &mut Control) -> Result<End, Fault> {
        loop {
            control.listen();
            if control.stopping {
                self.finish(control)?;
                return Ok(End::Stop);
            }
            if let Some(changes) = self.feed.poll(self.context)? {
                self.apply(changes);
            }
            self.heed(control);
            if let Some(relapse) = self.relapse(control)? {
                return Ok(End::Recover(relapse));
            }
            self.snapshot_if_due(control)?;
            let obstacle = self.obstacle(control);
            self.show(&obstacle);
            control.acknowledge();
            match obstacle {
                Some(_) => control.wait(IDLE),
                None => self.advance()?,
            }
        }
    }

    fn apply(&mut self, changes: Changes) {
        for (pair, entry) in changes.added {
            self.graph.insert(pair, entry);
            self.epoch.insert(pair);
        }
        if changes.erased.is_empty() {
            return;
        }
        let gone: HashSet<PairKey> = changes.erased.into_iter().collect();
        for pair in &gone {
            self.epoch.remove(*pair);
            if let Some(entry) = self.graph.remove(*pair) {
                self.pictures.forget(&entry.images);
            }
        }
        self.learner.forget(&gone, &self.graph);
    }

    /// Chains of pairs that were erased since the checkpoint, however long ago.
    fn forget_strangers(&mut self) {
        let chains = self.learner.table.to_columns();
        let slots = chains.anchor.iter().chain(&chains.negative);
        let gone: HashSet<PairKey> = slots
            .map(|slot| SlotKey::from_packed(*slot).pair())
            .filter(|pair| self.graph.get(*pair).is_none())
            .collect();
        if !gone.is_empty() {
            self.learner.forget(&gone, &self.graph);
        }
    }

    /// The checkpoint that the run starts from: one that was written just before a stop was not judged, and one that was found collapsed
    /// may not have been recovered from.
    fn look_back(&self) -> Result<(), Fault> {
        let Some(id) = self.parent else { return Ok(()) };
        let context = self.context;
        let row = context.wait(context.db.checkpoint(id))?;
        let Some(row) = row.filter(|row| row.step > 0) else {
            return Ok(());
        };
        if let Some(evaluation) = Evaluation::of_row(&row) {
            if evaluation.collapsed(&context.config.gate) {
                context.board.raise(Alarm {
                    lineage: self.lineage,
                    step: row.step,
                    why: row.reason.unwrap_or_else(|| "it had collapsed".to_owned()),
                });
            }
            return Ok(());
        }
        if row.evaluation.is_some() || !self.snapshotter.is_idle() {
            return Ok(());
        }
        let label = Label {
            id,
            note: row.note,
            parent: row.parent,
        };
        self.snapshotter.submit(Job {
            label,
            step: row.step,
            snapshot: None,
            lineage: self.lineage,
        })
    }

    /// Settings changed by callers, and checkpoints that were lost.
    fn heed(&mut self, control: &Control) {
        if control.rate.is_some() && control.rate != self.state.rate_override {
            self.state.rate_override = control.rate;
            self.triggers.soil();
        }
        if self.snapshotter.lost_one() {
            self.triggers.soil();
        }
    }

    /// Whether training must go back to health: collapse that is believed, or a caller who resumes what had given up.
    fn relapse(&mut self, control: &mut Control) -> Result<Option<Relapse>, Fault> {
        let resumed = std::mem::take(&mut control.resumed);
        let scale = self.state.rate_scale;
        let back = |why: String, factor| Relapse { why, scale, factor };
        if let Some(why) = self.given_up.take_if(|_| resumed) {
            return Ok(Some(back(why, 1.0)));
        }
        let Some(alarm) = self.context.board.alarm() else {
            return Ok(None);
        };
        let config = &self.context.config;
        let warmup = config.schedule.warmup_steps;
        let ours = alarm.lineage == self.lineage;
        if ours && recovery::believed(alarm.step, warmup, recovery::ever_healthy(self.context)?) {
            return Ok(Some(back(alarm.why, config.snapshots.recovery_rate)));
        }
        Ok(None)
    }

    /// What keeps the next step from being made.
    fn obstacle(&self, control: &Control) -> Option<(TrainingState, Option<String>)> {
        let run = &self.context.config.run;
        let (wanted, there) = (run.min_pairs.max(2), self.epoch.len());
        let waiting = |what: String| Some((TrainingState::Waiting, Some(what)));
        if self.given_up.is_some() {
            Some((TrainingState::Failed, None))
        } else if !run.enabled {
            waiting("training.enabled is false".to_owned())
        } else if control.paused {
            Some((TrainingState::Paused, None))
        } else if self.is_complete() {
            waiting(format!("training.max_steps ({}) is reached", run.max_steps))
        } else if there < wanted {
            waiting(format!("{wanted} training pairs, {there} are there"))
        } else {
            None
        }
    }

    fn is_complete(&self) -> bool {
        let most = self.context.config.run.max_steps;
        most > 0 && self.state.step >= most
    }

    fn show(&self, obstacle: &Option<(TrainingState, Option<String>)>) {
        self.context.board.update(|status| {
            let (state, waiting_for) = obstacle.clone().unwrap_or((TrainingState::Running, None));
            status.state = state;
            status.waiting_for = waiting_for;
            status.step = self.state.step;
            status.epoch = self.state.epoch;
            status.chains = self.learner.table.len() as u64;
            status.pairs = self.graph.len() as u64;
            status.images = self.graph.images() as u64;
            status.skipped = self.state.skipped;
            status.learning_rate = self.rate();
            self.meter.show(status);
            if state != TrainingState::Running {
                status.steps_per_second = 0.0;
                status.images_per_second = 0.0;
            }
        });
    }

    fn snapshot_if_due(&mut self, control: &mut Control) -> Result<(), Fault> {
        let (step, now) = (self.state.step, Instant::now());
        let complete = self.is_complete() && self.triggers.is_dirty(step);
        let automatic = self.given_up.is_none() && (complete || self.triggers.due(step, now));
        let asked = !control.requests.is_empty();
        let room = self.snapshotter.has_room();
        if asked && room || automatic && self.snapshotter.is_idle() {
            return self.snapshot(std::mem::take(&mut control.requests));
        }
        if automatic && !complete && !self.triggers.is_forced() {
            tracing::warn!(
                step,
                "an automatic snapshot is skipped: the one before is still being written or judged"
            );
            self.triggers.skip(step, now);
        }
        Ok(())
    }

    /// Copies the state and hands it over; all `requests` get its id.
    fn snapshot(&mut self, requests: Vec<Request>) -> Result<(), Fault> {
        let notes: Vec<&str> = requests
            .iter()
            .filter_map(|request| request.note.as_deref())
            .collect();
        let label = Label {
            id: CheckpointId::now(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            parent: self.parent,
        };
        let step = self.state.step;
        let snapshot = Some(Box::new(self.capture()?));
        self.context
            .wait(self.context.checkpoints.begin(&label, step))?;
        for request in requests {
            // The caller may have gone; the snapshot is taken all the same.
            let _ = request.answer.send(Ok(label.id));
        }
        self.parent = Some(label.id);
        self.triggers.taken(step, Instant::now());
        self.snapshotter.submit(Job {
            label,
            step,
            snapshot,
            lineage: self.lineage,
        })
    }

    fn capture(&self) -> Result<Snapshot, Fault> {
        Ok(Snapshot {
            encoder: self.learner.encoder.config().clone(),
            model: self.learner.encoder.to_arrays()?,
            optimizer: self.learner.optimizer.to_arrays()?,
            chains: self.learner.table.to_columns(),
            trainer: self.state.clone(),
        })
    }

    fn finish(&mut self, control: &mut Control) -> Result<(), Fault> {
        self.snapshotter.hurry();
        self.heed(control);
        let requests = std::mem::take(&mut control.requests);
        let news = self.triggers.is_dirty(self.state.step) || self.triggers.is_forced();
        let dirty = news && self.given_up.is_none();
        if dirty || !requests.is_empty() {
            self.snapshot(requests)?;
        }
        Ok(())
    }
}

/// Network, moments and chains from a snapshot.
fn learner(context: &Context, snapshot: Snapshot) -> Result<Learner, Fault> {
    let config = &context.config;
    let encoder = Encoder::from_arrays(&config.encoder, &snapshot.model, &context.device)?;
    let mut optimizer = Optimizer::new(&config.optimizer, &encoder)?;
    if let Err(error) = optimizer.load_arrays(&snapshot.optimizer) {
        tracing::warn!(%error, "the optimiser's moments are of another kind: they start anew");
        optimizer = Optimizer::new(&config.optimizer, &encoder)?;
    }
    let table =
        ChainTable::from_columns(&snapshot.chains).map_err(|error| Fault(error.to_string()))?;
    let seed = snapshot.trainer.seed;
    Ok(Learner::new(
        config.learn.clone(),
        seed,
        encoder,
        optimizer,
        table,
    ))
}

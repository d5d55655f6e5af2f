//! The loop between step boundaries: hear callers, follow the database, take snapshots, wait or step.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use super::{
    TrainingState,
    context::{Context, Fault},
    control::Control,
    epoch::{Epoch, Position},
    feed::{Changes, Feed},
    loader::Loader,
    meter::Meter,
    origin::Start,
    pictures::Pictures,
    recovery::Relapse,
    snapshotter::{Job, Snapshotter},
    status::{Judgement, News},
    supervisor::{Backoff, End},
    triggers::Triggers,
};
use crate::{
    checkpoint::{Label, Recovery, Snapshot, TrainerState},
    db::Verdict,
    types::CheckpointId,
};
use kith_learn::Learner;
use kith_mcmc::{ChainTable, PairGraph, PairKey, SlotKey};
use kith_nn::{Encoder, Optimizer};

/// Longest wait for a command while there is nothing to do: new pairs are noticed after it.
const IDLE: Duration = Duration::from_millis(100);

/// One stretch of training, from a checkpoint until it is stopped or fails.
pub(super) struct Run<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) pool: &'a ThreadPool,
    pub(super) snapshotter: &'a Snapshotter,
    pub(super) learner: Learner,
    pub(super) state: TrainerState,
    pub(super) graph: PairGraph,
    pub(super) epoch: Epoch,
    pub(super) pictures: Arc<Pictures>,
    pub(super) loader: Loader,
    pub(super) meter: Meter,
    pub(super) triggers: Triggers,
    /// The next step to plan.
    pub(super) planned: u64,
    /// Skipped steps in a row, and batches in a row without two usable pairs.
    pub(super) skipped: u32,
    pub(super) unusable: u32,
    /// Why training stands still until a caller resumes it.
    pub(super) given_up: Option<String>,
    pub(super) feed: Feed,
    pub(super) parent: Option<CheckpointId>,
    pub(super) lineage: u64,
    backoff: Backoff,
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
            triggers: Triggers::new(&context.config.snapshots, state.step, Instant::now()),
            planned: state.step,
            skipped: 0,
            unusable: 0,
            given_up: None,
            feed: Feed::default(),
            parent: start.parent,
            lineage,
            backoff: Backoff::new(Duration::from_secs(
                context.config.run.max_backoff_seconds.max(1),
            )),
            state,
        };
        let all = run.feed.fill(context)?;
        run.apply(all);
        run.forget_strangers();
        run.judge_parent()?;
        Ok(run)
    }

    /// What follows a recovery must not be lost to a kill: its rate and, maybe, its fresh weights.
    pub(super) fn announce_recovery(&mut self) {
        self.triggers.force();
    }

    /// Trains until told to stop, or until it must go back. While a store fails it keeps what it holds, and tries again.
    pub(super) fn drive(&mut self, control: &mut Control) -> Result<End, Fault> {
        loop {
            let before = self.state.step;
            match self.turn(control) {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => self.backoff.forgive(self.state.step - before),
                Err(Fault::Store(error)) if !control.stopping => self.wait_out(control, &error),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// What happens between two step boundaries.
    fn turn(&mut self, control: &mut Control) -> Result<Option<End>, Fault> {
        control.listen();
        if control.stopping {
            self.finish(control)?;
            return Ok(Some(End::Stop));
        }
        if let Some(changes) = self.feed.poll(self.context)? {
            self.apply(changes);
        }
        self.apply_commands(control);
        if let Some(relapse) = self.relapse(control) {
            return Ok(Some(End::Recover(relapse)));
        }
        self.snapshot_if_due(control)?;
        let obstacle = self.obstacle(control);
        self.show(&obstacle);
        control.acknowledge();
        match obstacle {
            Some(_) => control.wait(IDLE),
            None => self.advance()?,
        }
        Ok(None)
    }

    /// A store failed: weights, moments and chains are whole. Batches that were planned are planned again, so that none is lost.
    fn wait_out(&mut self, control: &mut Control, error: &str) {
        let rest = self.backoff.next();
        tracing::error!(
            error,
            rest_seconds = rest.as_secs(),
            step = self.state.step,
            "a store failed: training rests and keeps its state"
        );
        self.context
            .board
            .update(|status| super::supervisor::fail(status, error.to_owned()));
        control.rest(rest);
        self.loader.clear();
        self.planned = self.state.step;
        self.epoch.rewind(Position {
            epoch: self.state.epoch,
            cursor: self.state.cursor,
        });
    }

    pub(super) fn apply(&mut self, changes: Changes) {
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
        // A snapshot of before holds what is erased now.
        self.triggers.mark_dirty();
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
            self.triggers.mark_dirty();
        }
    }

    /// The checkpoint that the run starts from may have been written just before a stop and not been judged.
    fn judge_parent(&self) -> Result<(), Fault> {
        let Some(id) = self.parent else { return Ok(()) };
        let context = self.context;
        let row = context.wait(context.db.checkpoint(id))?;
        let Some(row) = row.filter(|row| row.step > 0) else {
            return Ok(());
        };
        if row.verdict == Some(Verdict::Collapsed) {
            context.board.tell(Judgement {
                lineage: self.lineage,
                news: News::Collapsed(row.reason.unwrap_or_else(|| "it had collapsed".to_owned())),
            });
        }
        if row.verdict.is_some() || !self.snapshotter.is_idle() {
            return Ok(());
        }
        self.snapshotter.submit(Job {
            label: Label {
                id,
                note: row.note,
                parent: row.parent,
                kept: row.kept,
            },
            step: row.step,
            snapshot: None,
            lineage: self.lineage,
        })
    }

    /// Settings changed by callers, and checkpoints that were lost.
    pub(super) fn apply_commands(&mut self, control: &mut Control) {
        if std::mem::take(&mut control.rate_changed) {
            // A rate that a caller sets is the rate: what recoveries left of the one before is forgotten.
            self.state.rate_scale = 1.0;
            self.state.recovery = Recovery {
                since: self.state.step,
                ..Recovery::default()
            };
            self.triggers.mark_dirty();
        }
        if control.rate.is_some() && control.rate != self.state.rate_override {
            self.state.rate_override = control.rate;
            self.triggers.mark_dirty();
        }
        if self.snapshotter.lost_one() {
            self.triggers.mark_dirty();
        }
    }

    /// Whether training must go back: collapse, a run of worse candidates, or a caller who resumes what had given up.
    fn relapse(&mut self, control: &mut Control) -> Option<Relapse> {
        let resumed = std::mem::take(&mut control.resumed);
        if let Some(why) = self.given_up.take_if(|_| resumed) {
            return Some(Relapse::resumed(why, &self.state));
        }
        let ours = self.lineage;
        let judgements = self.context.board.judgements();
        let mut news = judgements.into_iter().filter(|j| j.lineage == ours);
        let why = news.find_map(|judgement| self.bad_turn(judgement.news))?;
        if self.given_up.is_some() {
            return None;
        }
        let relapse = Relapse::lower(why.clone(), &self.state, &self.context.config.snapshots);
        if relapse.is_none() {
            self.give_up(format!(
                "{} recoveries did not help; the last followed this: {why}. Look at the pairs, set a lower learning rate, then set the state \
                 to running, which goes back to the best checkpoint",
                self.state.recovery.tries
            ));
        }
        relapse
    }

    /// Takes note of a judgement; why training must go back, if it must.
    fn bad_turn(&mut self, news: News) -> Option<String> {
        let recovery = &mut self.state.recovery;
        let most = self.context.gate().max_refusals;
        match news {
            News::Better => (recovery.tries, recovery.refusals) = (0, 0),
            News::Undecided => recovery.refusals = 0,
            News::Worse(why) => {
                recovery.refusals += 1;
                if most > 0 && recovery.refusals >= most {
                    return Some(format!("{most} candidates in a row were worse: {why}"));
                }
            }
            News::Collapsed(why) => return Some(why),
        }
        None
    }

    /// Training stands still until a caller resumes it.
    pub(super) fn give_up(&mut self, reason: String) {
        tracing::error!(step = self.state.step, reason, "training gave up");
        self.context
            .board
            .update(|status| status.last_error = Some(reason.clone()));
        self.given_up = Some(reason);
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
        } else if !self.graph.has_eligible_negative() {
            waiting(format!(
                "two training pairs that may be each other's negatives: all {there} pairs share a group or an image"
            ))
        } else {
            None
        }
    }

    pub(super) fn is_complete(&self) -> bool {
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
            status.rate_scale = self.state.rate_scale;
            self.meter.show(status);
            if state != TrainingState::Running {
                status.steps_per_second = 0.0;
                status.images_per_second = 0.0;
            }
        });
    }
}

/// Network, moments and chains from a snapshot.
fn learner(context: &Context, snapshot: Snapshot) -> Result<Learner, Fault> {
    let config = &context.config;
    let encoder = Encoder::from_arrays(&config.encoder, &snapshot.model, &context.device)?;
    let mut optimizer = Optimizer::new(&config.optimizer, &encoder)?;
    // Moments that were lost have been reported when the checkpoint was read.
    if !snapshot.optimizer.is_empty()
        && let Err(error) = optimizer.load_arrays(&snapshot.optimizer)
    {
        tracing::warn!(%error, "the optimiser's moments are of another kind: they start anew");
        optimizer = Optimizer::new(&config.optimizer, &encoder)?;
    }
    let table = ChainTable::from_columns(&snapshot.chains).map_err(Fault::broken)?;
    let seed = snapshot.trainer.seed;
    Ok(Learner::new(
        config.learn.clone(),
        seed,
        encoder,
        optimizer,
        table,
    ))
}

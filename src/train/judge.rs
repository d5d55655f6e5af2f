//! Evaluates a new snapshot on held-out pairs, beside the best checkpoints before it, and carries out what the gate decides.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::ThreadPool;

use super::{
    alarms::{AlarmKind, evaluated},
    context::Context,
    error::TrainFailure,
    over_fitting::{EvaluationHistory, Judged},
    recovery,
    snapshot_job::SnapshotJob,
    status::{CandidateVerdict, Judgement},
};
use crate::{
    checkpoint::{Action, CheckpointError, Event, Model, Origin, Outcome},
    types::CheckpointId,
};
use kith_eval::{EvalReport, EvaluationSet};

/// With fewer held-out anchors than this, the geometry of the embeddings is taken from trained pairs instead.
const MIN_HELD_OUT: usize = 8;
/// Of fewer different things the geometry says nothing: the images of one are alike by right.
const MIN_THINGS: usize = 2;
/// Rows of the training series that the loss between two evaluations is the mean of.
const MAX_ROWS: u32 = 1000;
/// Trained pairs whose geometry is used then.
const TRAINED_SAMPLE: usize = 32;

/// Judges checkpoints in a pool beside the training pool.
pub(super) struct Judge {
    context: Arc<Context>,
    pool: Arc<ThreadPool>,
    history: Mutex<EvaluationHistory>,
}

/// The images that checkpoints are evaluated on, and whether to go on.
struct EvalInputs<'a> {
    held_out: EvaluationSet,
    trained: Option<EvaluationSet>,
    /// Whether the images that the geometry is taken from are of enough different things to tell a collapse by.
    tells_collapse: bool,
    keep_going: &'a (dyn Fn() -> bool + Sync),
}

impl Judge {
    pub(super) fn new(context: Arc<Context>, pool: Arc<ThreadPool>) -> Self {
        Self {
            context,
            pool,
            history: Mutex::default(),
        }
    }

    /// Evaluates the checkpoint of `job` and carries out what the gate decides, unless `keep_going` answers `false` on the way.
    pub(super) fn judge(
        &self,
        job: &SnapshotJob,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), TrainFailure> {
        let (id, context) = (job.label.id, &self.context);
        match self.judge_stored(job, keep_going) {
            // A caller deleted it meanwhile: there is nothing to judge.
            Err(_) if context.wait(context.checkpoints.is_gone(id))? => Ok(()),
            judged => judged,
        }
    }

    fn judge_stored(
        &self,
        job: &SnapshotJob,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), TrainFailure> {
        let (id, context) = (job.label.id, &self.context);
        let inputs = self.eval_inputs(keep_going)?;
        let Some(outcome) = self.outcome(job, &inputs)? else {
            return Ok(());
        };
        self.raise_alarms(job, &outcome, inputs.tells_collapse)?;
        let event = Event::Judged { id, outcome };
        let actions = context.wait(context.checkpoints.decide(&event))?;
        for action in &actions {
            self.report(job, action);
        }
        Ok(())
    }

    /// Raises and takes back the alarms that evaluations decide.
    fn raise_alarms(
        &self,
        job: &SnapshotJob,
        outcome: &Outcome,
        tells_collapse: bool,
    ) -> Result<(), TrainFailure> {
        let (context, step) = (&self.context, job.step);
        let gate = context.gate();
        let shows_sound = tells_collapse && !job.is_restored;
        for (kind, why) in evaluated(outcome, (step, shows_sound), gate) {
            context.status.set_alarm(kind, step, why);
        }
        let Outcome::Scored { pairs, units, .. } = outcome else {
            return Ok(());
        };
        // Of fewer pairs chance decides.
        if gate.too_few(*pairs, *units).is_some() {
            context.status.set_alarm(AlarmKind::OverFitting, step, None);
            return Ok(());
        }
        self.judge_over_fitting(job)
    }

    /// Adds the evaluation of the job's checkpoint to those before it, and raises or takes back the alarm that training over-fits. Where nothing is known
    /// of the loss since the evaluation before it, this one says nothing.
    fn judge_over_fitting(&self, job: &SnapshotJob) -> Result<(), TrainFailure> {
        let context = &self.context;
        let row = context.wait(context.db.checkpoint(job.label.id))?;
        let score = row.and_then(|row| serde_json::from_value(row.score?).ok());
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let after = history.counts_after(job.run_id, job.run_began_at);
        let rows = context.wait(context.db.metrics_since(after + 1, MAX_ROWS))?;
        let losses = rows.iter().filter(|row| row.step <= job.step);
        let losses: Vec<f32> = losses.map(|row| row.global_loss_estimate).collect();
        let (Some(score), false) = (score, losses.is_empty()) else {
            return Ok(());
        };
        let judged = Judged {
            step: job.step,
            score,
            loss: losses.iter().sum::<f32>() / losses.len() as f32,
        };
        history.push(job.run_id, judged);
        let why = history.over_fits();
        context
            .status
            .set_alarm(AlarmKind::OverFitting, job.step, why);
        Ok(())
    }

    /// The outcome of evaluating the candidate; `None` if stopped on the way.
    fn outcome(
        &self,
        job: &SnapshotJob,
        inputs: &EvalInputs<'_>,
    ) -> Result<Option<Outcome>, TrainFailure> {
        let (id, context) = (job.label.id, &self.context);
        let judged = match self.evaluate(id, inputs) {
            Ok(Some(judged)) => judged,
            Ok(None) => return Ok(None),
            Err(error)
                if error.unusable().is_some()
                    && !context.wait(context.checkpoints.is_gone(id))? =>
            {
                return Ok(Some(Outcome::Collapsed(error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        context.wait(context.checkpoints.set_evaluation(id, &judged))?;
        let mut collapse = self.collapse(&judged, inputs);
        if collapse.is_none() && job.is_suspected {
            collapse = match self.evaluate_in_training(id, inputs) {
                Ok(Some(in_training)) => self.collapse(&in_training, inputs),
                Ok(None) => return Ok(None),
                Err(error) if error.unusable().is_some() => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            collapse = collapse.map(|why| format!("in training {why}"));
        }
        if let Some(why) = collapse {
            return self.collapsed(job, why).map(Some);
        }
        let live_readable = self.evaluate_others(id, &judged, inputs)?;
        let (pairs, units) = (judged.evaluation.pairs, judged.score.asked.len());
        let too_few = context.gate().too_few(pairs, units).is_some();
        Ok(live_readable.map(|live_readable| Outcome::Scored {
            pairs,
            units,
            live_readable,
            // Nobody asks where they suffice to compare by.
            is_live_copy: too_few && self.is_live_copy(id),
        }))
    }

    /// Whether another checkpoint serves that has the weights of this one; `false` if one of them cannot be read.
    fn is_live_copy(&self, id: CheckpointId) -> bool {
        let (context, checkpoints) = (&self.context, &self.context.checkpoints);
        let manifests = context.wait(async {
            let live = checkpoints.life().await?.live().map(|live| live.id);
            let Some(live) = live.filter(|live| *live != id) else {
                return Ok(None);
            };
            let of_live = checkpoints.manifest(live).await?;
            Ok::<_, CheckpointError>(Some((of_live, checkpoints.manifest(id).await?)))
        });
        match manifests {
            Ok(Some((of_live, own))) => own.has_weights_of(&of_live),
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(checkpoint = %id, %error, "whether it is a copy of what serves is not known");
                false
            }
        }
    }

    /// The outcome for embeddings that lie close together. It is no collapse while the weights are still near their start.
    fn collapsed(&self, job: &SnapshotJob, why: String) -> Result<Outcome, TrainFailure> {
        let (step, context) = (job.step, &self.context);
        let life = context.wait(context.checkpoints.life())?;
        let manifest = context.wait(context.checkpoints.manifest(job.label.id))?;
        let warmup = context.config.schedule.warmup_steps;
        // In one from before, a fitted projection may spread out what random weights see.
        let tells_after = if Origin::is_pretrained(manifest.origin.as_ref()) {
            0
        } else {
            warmup
        };
        let healthy = recovery::ever_healthy(&life, tells_after);
        if recovery::collapse_counts(step, warmup, healthy) {
            return Ok(Outcome::Collapsed(why));
        }
        Ok(Outcome::Untrained(format!(
            "step {step} is too near the fresh weights to be judged (schedule.warmup_steps is {warmup})"
        )))
    }

    /// Evaluates the live checkpoint and the best ones on the same questions, where that has not been done. Returns whether the live one could
    /// be read; `None` if stopped on the way.
    fn evaluate_others(
        &self,
        candidate: CheckpointId,
        judged: &EvalReport,
        inputs: &EvalInputs<'_>,
    ) -> Result<Option<bool>, TrainFailure> {
        let context = &self.context;
        let life = context.wait(context.checkpoints.life())?;
        let max_best = context.checkpoints.policy().retention.keep_best.max(1);
        let live = life.live().map(|live| live.id);
        let mut live_readable = true;
        for id in life.to_evaluate_again(&judged.score, max_best) {
            if id == candidate {
                continue;
            }
            match self.evaluate(id, inputs) {
                Ok(Some(judged)) => {
                    context.wait(context.checkpoints.set_evaluation(id, &judged))?
                }
                Ok(None) => return Ok(None),
                Err(error) if error.unusable().is_some() => {
                    tracing::error!(checkpoint = %id, %error, "a checkpoint cannot be judged again");
                    context.wait(context.checkpoints.decide(&Event::Unreadable(id)))?;
                    live_readable &= live != Some(id);
                }
                // Deleted meanwhile.
                Err(CheckpointError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(live_readable))
    }

    fn eval_inputs<'a>(
        &self,
        keep_going: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<EvalInputs<'a>, TrainFailure> {
        let Context {
            checkpoints,
            config,
            ..
        } = &*self.context;
        let gate = self.context.gate();
        let max_pairs = gate.pairs_to_ask(config.snapshots.evaluation_pairs);
        let held_out = self.context.wait(checkpoints.held_out_set(max_pairs))?;
        let tells = held_out.anchors.len() >= MIN_HELD_OUT && has_several_things(&held_out);
        let trained = if tells {
            None
        } else {
            Some(self.context.wait(checkpoints.trained_set(TRAINED_SAMPLE))?)
        };
        Ok(EvalInputs {
            tells_collapse: trained.as_ref().is_none_or(has_several_things),
            held_out,
            trained,
            keep_going,
        })
    }

    fn evaluate(
        &self,
        id: CheckpointId,
        inputs: &EvalInputs<'_>,
    ) -> Result<Option<EvalReport>, CheckpointError> {
        let context = &self.context;
        let model = context.wait(context.checkpoints.load_model(id))?;
        self.evaluate_model(&model, inputs)
    }

    /// Why the embeddings of `report` count as collapsed, if they do.
    fn collapse(&self, report: &EvalReport, inputs: &EvalInputs<'_>) -> Option<String> {
        let collapse = self.context.gate().collapse(&report.evaluation);
        collapse.filter(|_| inputs.tells_collapse)
    }

    /// Evaluates the weights in training, which may have collapsed where those that serve do not show it: these are an average, of which a share may stay
    /// with the weights that training began with. `None` if stopped on the way.
    fn evaluate_in_training(
        &self,
        id: CheckpointId,
        inputs: &EvalInputs<'_>,
    ) -> Result<Option<EvalReport>, CheckpointError> {
        let context = &self.context;
        let snapshot = context.wait(context.checkpoints.load(id))?;
        let in_training = Model {
            id,
            step: snapshot.trainer.step,
            encoder: snapshot.encoder.clone(),
            arrays: snapshot.into_weights_in_training(),
            range: None,
        };
        self.evaluate_model(&in_training, inputs)
    }

    fn evaluate_model(
        &self,
        model: &Model,
        inputs: &EvalInputs<'_>,
    ) -> Result<Option<EvalReport>, CheckpointError> {
        let context = &self.context;
        // In the precision that it would serve in.
        let open = || model.open(&context.device, context.config.precision);
        let towers = self.pool.install(open)?;
        let evaluate = |set: &EvaluationSet| {
            self.pool
                .install(|| model.evaluate(&towers, set, &context.config.limits, inputs.keep_going))
        };
        let Some(mut held_out) = evaluate(&inputs.held_out)? else {
            return Ok(None);
        };
        if let Some(trained) = &inputs.trained {
            let Some(report) = evaluate(trained)? else {
                return Ok(None);
            };
            held_out.evaluation.geometry = report.evaluation.geometry;
        }
        Ok(Some(held_out))
    }

    /// Logs the candidate's verdict and passes it to the loop.
    fn report(&self, job: &SnapshotJob, action: &Action) {
        let Action::Mark { id, verdict, why } = action else {
            return;
        };
        let why = why.as_deref().unwrap_or("it serves");
        tracing::info!(checkpoint = %id, step = job.step, ?verdict, why, "judged");
        self.context.status.push_judgement(Judgement {
            run_id: job.run_id,
            checkpoint: *id,
            verdict: CandidateVerdict::new(*verdict, why),
        });
    }
}

/// Whether the images are of different things.
fn has_several_things(set: &EvaluationSet) -> bool {
    let things: HashSet<u64> = set.anchor_labels.iter().copied().collect();
    things.len() >= MIN_THINGS
}

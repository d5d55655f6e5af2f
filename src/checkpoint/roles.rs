//! Carries out what [`Life`] decides, one decision at a time, on the state that the database holds at that moment.

use std::collections::HashSet;

use serde_json::json;

use super::{
    Action, CheckpointError, Checkpoints, Entry, Event, InUse, Life, Policy, reason,
    store::{blocking, damaged},
};
use crate::{
    db::{Canary, CheckpointRow, DecidedBy, Decision, Verdict},
    events::Kind,
    types::CheckpointId,
};
use kith_eval::{EvalReport, Score};

impl Checkpoints {
    /// The same checkpoints under other settings.
    pub fn with_policy(&self, policy: Policy) -> Self {
        Self {
            policy: policy.into(),
            ..self.clone()
        }
    }

    /// The settings that decisions follow.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is known of all checkpoints at this moment.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the database cannot be read.
    pub async fn life(&self) -> Result<Life, CheckpointError> {
        let mut rows = self.db.checkpoints().await?;
        rows.reverse();
        let aliases = self.db.aliases().await?;
        let canaries = self.db.canaries().await?;
        let aliased = aliases.iter().filter_map(|alias| alias.checkpoint);
        let aliased = aliased.chain(canaries.iter().map(|canary| canary.checkpoint));
        let aliased: HashSet<CheckpointId> = aliased.collect();
        let entries = rows.into_iter().map(|row| {
            let (aliased, in_use) = (aliased.contains(&row.id), self.usage.is_used(row.id));
            entry(row, aliased, in_use)
        });
        Ok(Life {
            entries: entries.collect(),
        })
    }

    /// Decides what follows from `event` and carries it out. One decision runs at a time, so that the state it was taken on still holds.
    ///
    /// If the choice of the gate or of a start cannot be read, it is marked as damaged and the decision is taken again.
    ///
    /// # Errors
    /// The event is refused (see [`Life::decide`]), a checkpoint that a person chose does not load, or a store fails. Actions that were carried
    /// out before the failure stay.
    pub async fn decide(&self, event: &Event) -> Result<Vec<Action>, CheckpointError> {
        let _roles = self.roles.lock().await;
        loop {
            let actions = self.life().await?.decide(event, &self.policy)?;
            let unreadable = match self.carry_out(&actions).await {
                Ok(()) => return Ok(actions),
                Err(error) => {
                    let unusable = error.unusable();
                    let replaced = unusable.filter(|id| has_another(event, &actions, *id));
                    match replaced {
                        Some(id) => id,
                        None => return Err(error),
                    }
                }
            };
            let marked = Event::Unreadable(unreadable);
            let marked = self.life().await?.decide(&marked, &self.policy)?;
            self.carry_out(&marked).await?;
        }
    }

    async fn carry_out(&self, actions: &[Action]) -> Result<(), CheckpointError> {
        for action in actions {
            self.act(action).await?;
        }
        Ok(())
    }

    async fn act(&self, action: &Action) -> Result<(), CheckpointError> {
        match action {
            Action::Serve { id, by, why, hold } => {
                self.load_model(*id).await?;
                let decision = Decision {
                    by: *by,
                    why: why.clone(),
                    hold: *hold,
                };
                if !self.db.promote_checkpoint(*id, &decision).await? {
                    return Err(CheckpointError::Unknown(*id));
                }
                tracing::info!(checkpoint = %id, ?by, why, hold, "promoted");
            }
            Action::Mark { id, verdict, why } => {
                self.db.set_verdict(*id, *verdict, why.as_deref()).await?;
                self.tell_verdict(*id, *verdict, why.as_deref()).await?;
            }
            Action::Release => self.db.release_checkpoint(reason::RELEASED).await?,
            Action::Keep(id, kept) => self.db.keep_checkpoint(*id, *kept).await?,
            Action::Remove(id) => {
                self.remove_files(*id).await?;
                self.db.delete_checkpoint(*id).await?;
            }
        }
        Ok(())
    }

    async fn tell_verdict(
        &self,
        id: CheckpointId,
        verdict: Verdict,
        reason: Option<&str>,
    ) -> Result<(), CheckpointError> {
        let row = self.row(id).await?;
        let evaluation = row.and_then(|row| row.evaluation);
        let data = json!({"checkpoint": id, "verdict": verdict, "reason": reason, "evaluation": evaluation});
        self.events.publish(Kind::Evaluation, data);
        // A collapse is the trainer's to tell, with what to do about it.
        if verdict == Verdict::Damaged {
            let message = reason.unwrap_or("a checkpoint is of no use");
            let data = json!({"checkpoint": id, "message": message});
            self.events.publish(Kind::Alarm, data);
        }
        Ok(())
    }

    /// Makes a checkpoint serve because a person wants it. With `hold` the gate leaves it until [`Checkpoints::release`].
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`], [`CheckpointError::Damaged`] or [`CheckpointError::NotFinite`] if it cannot serve, or a failure of a store.
    pub async fn promote(&self, id: CheckpointId, hold: bool) -> Result<(), CheckpointError> {
        self.decide(&Event::Chosen { id, hold }).await.map(drop)
    }

    /// Gives the choice of what serves back to the gate, which acts at once on what it knows.
    ///
    /// # Errors
    /// A failure of a store.
    pub async fn release(&self) -> Result<(), CheckpointError> {
        self.decide(&Event::Released).await.map(drop)
    }

    /// Changes what retention does with a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`], [`CheckpointError::Quota`] if no more may be kept, or a failure of the database.
    pub async fn keep(&self, id: CheckpointId, kept: bool) -> Result<(), CheckpointError> {
        self.decide(&Event::Kept { id, kept }).await.map(drop)
    }

    /// Replaces a checkpoint's note.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the row cannot be written.
    pub async fn note(&self, id: CheckpointId, note: Option<&str>) -> Result<(), CheckpointError> {
        Ok(self.db.note_checkpoint(id, note).await?)
    }

    /// Removes a checkpoint: manifest first, then parts, then row.
    ///
    /// # Errors
    /// [`CheckpointError::Live`] if it serves, [`CheckpointError::Aliased`] if a name points to it, [`CheckpointError::Unknown`] if it is not
    /// there or still being written, or a failure of a store.
    pub async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        self.decide(&Event::Deleted(id)).await.map(drop)
    }

    /// Whether a checkpoint is not there, or not any more: waits for a deletion that is under way.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the database cannot be read.
    pub async fn is_gone(&self, id: CheckpointId) -> Result<bool, CheckpointError> {
        let _roles = self.roles.lock().await;
        Ok(self.row(id).await?.is_none())
    }

    /// Points a name at a complete checkpoint, or at whichever is live, and has a canary tried under it, or none.
    ///
    /// # Errors
    /// [`CheckpointError::Unknown`] or [`CheckpointError::Damaged`] if its manifest is not there or cannot be read, or a failure of a store.
    pub async fn set_alias(
        &self,
        name: &str,
        checkpoint: Option<CheckpointId>,
        canary: Option<&Canary>,
    ) -> Result<(), CheckpointError> {
        // Nothing may remove the checkpoints between the check and the new name.
        let _roles = self.roles.lock().await;
        for id in checkpoint
            .into_iter()
            .chain(canary.map(|canary| canary.checkpoint))
        {
            self.manifest(id).await?;
        }
        Ok(self.db.set_alias(name, checkpoint, canary).await?)
    }

    /// Keeps a checkpoint from being pruned until the guard goes.
    pub fn begin_use(&self, id: CheckpointId) -> InUse {
        self.usage.begin(id)
    }

    /// Removes what nobody needs any more; answers what went. One that cannot be removed is logged and tried again the next time.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the database cannot be read.
    pub async fn prune(&self) -> Result<Vec<CheckpointId>, CheckpointError> {
        let _roles = self.roles.lock().await;
        let actions = self.life().await?.decide(&Event::Tidied, &self.policy)?;
        let mut gone = Vec::new();
        for action in &actions {
            let Action::Remove(id) = action else { continue };
            match self.act(action).await {
                Ok(()) => gone.push(*id),
                Err(error) => tracing::warn!(checkpoint = %id, %error, "not pruned"),
            }
        }
        Ok(gone)
    }

    /// Stores the evaluation of a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Db`] if the row cannot be written.
    pub async fn set_evaluation(
        &self,
        id: CheckpointId,
        report: &EvalReport,
    ) -> Result<(), CheckpointError> {
        let json = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| damaged(id, format!("its evaluation: {error}")))
        };
        let evaluation = json(serde_json::to_value(report.evaluation))?;
        let score = json(serde_json::to_value(&report.score))?;
        Ok(self.db.set_evaluation(id, &evaluation, &score).await?)
    }
}

/// Whether another checkpoint may serve in place of `id`, which was chosen and does not load: nobody asked for it by name, and it is not
/// the last resort of a start.
fn has_another(event: &Event, actions: &[Action], id: CheckpointId) -> bool {
    let last_resort = matches!(event, Event::Started { newest, .. } if *newest == id);
    let chosen = actions.iter().any(|action| {
        matches!(
            action,
            Action::Serve { id: chosen, by: DecidedBy::Gate | DecidedBy::Start, .. } if *chosen == id
        )
    });
    chosen && !last_resort
}

fn entry(row: CheckpointRow, aliased: bool, in_use: bool) -> Entry {
    Entry {
        id: row.id,
        step: row.step,
        status: row.status,
        role: row.role,
        kept: row.kept,
        held: row.held,
        aliased,
        in_use,
        verdict: row.verdict,
        score: row
            .score
            .and_then(|score| serde_json::from_value::<Score>(score).ok()),
    }
}

/// Checks off the async threads that all weights are finite.
pub(super) async fn check_finite(
    id: CheckpointId,
    arrays: Vec<kith_nn::NamedArray>,
) -> Result<Vec<kith_nn::NamedArray>, CheckpointError> {
    let (arrays, finite) = blocking(move || {
        let finite = arrays.iter().all(kith_nn::NamedArray::is_finite);
        (arrays, finite)
    })
    .await?;
    if finite {
        Ok(arrays)
    } else {
        Err(CheckpointError::NotFinite(id))
    }
}

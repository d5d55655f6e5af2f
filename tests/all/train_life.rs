//! Training and the life of checkpoints together: choices that hold, and rollbacks that end.

use kith::{
    checkpoint::CheckpointError,
    db::{CheckpointRow, CheckpointStatus, DecidedBy, Verdict},
    foreground::Foreground,
    train::{TrainError, Trainer, TrainingState},
    types::CheckpointId,
};

use crate::{
    lab::{Lab, collapsing, config, poll, until},
    train::newest,
};

/// The rows of all checkpoints once they are as expected.
pub(crate) async fn until_rows(
    lab: &Lab,
    wish: impl Fn(&[CheckpointRow]) -> bool,
) -> Vec<CheckpointRow> {
    let look = async || Some(lab.db.checkpoints().await.unwrap()).filter(|rows| wish(rows));
    let found = poll(look).await;
    found.expect("the checkpoints never came to be as wished")
}

/// Settings under which every candidate serves: there are too few held-out pairs to compare by.
pub(crate) const ALL_SERVE: [&str; 3] = [
    "snapshots.every_steps=2",
    "gate.min_pairs=1000",
    "gate.collapse_spread=0.0",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_choice_holds_while_candidates_come_and_over_a_restart() {
    let lab = Lab::new(0.4).await;
    lab.post(0..30).await;
    let trainer = lab.start(config(&ALL_SERVE)).await;
    let first = lab.db.live_checkpoint().await.unwrap().unwrap().id;
    lab.checkpoints.keep(first, true).await.unwrap();
    until_rows(&lab, |rows| {
        rows.iter()
            .any(|row| row.step > 0 && row.decided_at.is_some())
    })
    .await;
    lab.checkpoints.promote(first, true).await.unwrap();
    // From now on only the choice keeps it.
    lab.checkpoints.keep(first, false).await.unwrap();
    let chosen_at = trainer.status().step;
    let later = |rows: &[CheckpointRow], after: u64| {
        let judged = |row: &&CheckpointRow| row.step > after && row.verdict.is_some();
        rows.iter().filter(judged).count()
    };
    // Retention keeps three of the newest: the chosen one is older than all of them by then.
    until_rows(&lab, |rows| later(rows, chosen_at + 10) >= 3).await;
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!((live.id, live.held), (first, true));
    assert_eq!(live.decided_by, Some(DecidedBy::Person));
    trainer.stop().await.unwrap();

    let trainer = lab.start(config(&ALL_SERVE)).await;
    let resumed_at = trainer.status().step;
    until_rows(&lab, |rows| later(rows, resumed_at + 2) >= 2).await;
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!((live.id, live.held), (first, true));

    lab.checkpoints.release().await.unwrap();
    let rows = until_rows(&lab, |rows| {
        rows.iter()
            .any(|row| row.decided_by == Some(DecidedBy::Gate) && row.step > resumed_at)
    })
    .await;
    let refused = rows
        .iter()
        .find(|row| row.verdict == Some(Verdict::Untested));
    assert!(refused.unwrap().reason.is_some());
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recoveries_keep_the_rate_above_its_floor_end_and_are_forgotten_for_a_callers_rate() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = [
        "snapshots.every_steps=10",
        "retention.keep_latest=50",
        "snapshots.recovery_rate=0.1",
        "snapshots.recovery_floor=0.05",
        "snapshots.max_recoveries=3",
        "snapshots.recovery_steps=0",
    ];
    let trainer = lab.start(collapsing(&sets)).await;
    let status = until(&trainer, |status| status.state == TrainingState::Failed).await;
    assert_eq!(status.recoveries, 3);
    assert_eq!(status.rate_scale, 0.05, "0.1, then the floor twice");
    let why = status.last_error.unwrap();
    assert!(
        why.contains("3 recoveries") && why.contains("collapsed"),
        "{why}"
    );

    trainer.set_learning_rate(Some(0.002)).await.unwrap();
    // Before it resumes, which forgets them too.
    let id = lab.take(&trainer, None).await.id;
    let state = lab.checkpoints.load(id).await.unwrap().trainer;
    assert_eq!((state.recovery.tries, state.rate_scale), (0, 1.0));
    trainer.set_paused(false).await.unwrap();
    // The next recovery may come before a status is seen: what was written when it resumed stays.
    let resumed = async || {
        let rows = lab.db.checkpoints().await.unwrap();
        for row in rows.iter().take_while(|row| row.id != id) {
            if row.status == CheckpointStatus::Complete {
                let state = lab.checkpoints.load(row.id).await.unwrap().trainer;
                if (state.rate_override, state.rate_scale) == (Some(0.002), 1.0) {
                    return Some(state.recovery.tries);
                }
            }
        }
        None
    };
    assert_eq!(poll(resumed).await, Some(0));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn training_that_gave_up_and_a_callers_rate_outlive_a_restart() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = [
        "schedule.learning_rate=1e30",
        "training.max_skipped=3",
        "optimizer.kind=sgd",
    ];
    let trainer = lab.start(config(&sets)).await;
    let failed = until(&trainer, |status| status.state == TrainingState::Failed).await;
    trainer.set_learning_rate(Some(1e-4)).await.unwrap();
    let before = lab.db.checkpoints().await.unwrap();
    trainer.stop().await.unwrap();
    // What training gave up on is no progress to keep.
    let after = lab.db.checkpoints().await.unwrap();
    assert_eq!(after.len(), before.len());

    let trainer = lab.start(config(&sets)).await;
    // The trainer has looked for a reason to wait by then.
    let again = until(&trainer, |status| status.state != TrainingState::Waiting).await;
    assert_eq!(again.state, TrainingState::Failed);
    assert_eq!(again.last_error, failed.last_error);
    trainer.set_paused(false).await.unwrap();
    let running = until(&trainer, |status| {
        status.state == TrainingState::Running && status.step > 3
    })
    .await;
    assert_eq!(running.learning_rate, 1e-4);
    // It was right to say so until training has shown that it goes well.
    assert!(running.last_error.is_some());
    lab.take(&trainer, None).await;
    // The row says that it is written a moment earlier.
    until(&trainer, |status| status.last_error.is_none()).await;
    trainer.stop().await.unwrap();

    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.state == TrainingState::Running).await;
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_and_ends_and_a_set_rate_survives_a_restart() {
    // Six pairs may be judged as collapsed after a few steps, and the recovery would lower the rate. No spread is below 0.
    let sets = ["gate.collapse_spread=0"];
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.set_paused(true).await.unwrap();
    let paused = trainer.status();
    assert_eq!(paused.state, TrainingState::Paused);
    assert!(trainer.set_learning_rate(Some(f32::NAN)).await.is_err());
    trainer.set_learning_rate(Some(0.003)).await.unwrap();
    assert_eq!(trainer.status().step, paused.step);
    trainer.stop().await.unwrap();
    assert_eq!(newest(&lab).await.trainer.rate_override, Some(0.003));

    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.state == TrainingState::Paused).await;
    assert_eq!(
        trainer.status().step,
        paused.step,
        "a pause outlives a restart"
    );
    trainer.set_paused(false).await.unwrap();
    until(&trainer, |status| status.step > paused.step + 2).await;
    let status = trainer.status();
    assert_eq!(
        (status.learning_rate, status.set_learning_rate),
        (0.003, Some(0.003))
    );

    trainer.stop().await.unwrap();

    // Taken back, and killed before a checkpoint without it was written.
    assert_eq!(newest(&lab).await.trainer.rate_override, Some(0.003));
    lab.db.set_learning_rate(None).await.unwrap();
    let trainer = lab.start(config(&sets)).await;
    let status = until(&trainer, |status| status.state == TrainingState::Running).await;
    assert_eq!(status.set_learning_rate, None);
    assert_ne!(status.learning_rate, 0.003);
    trainer.set_learning_rate(Some(0.002)).await.unwrap();
    assert_eq!(trainer.status().set_learning_rate, Some(0.002));
    trainer.set_learning_rate(None).await.unwrap();
    assert_eq!(trainer.status().set_learning_rate, None);
    assert_ne!(trainer.status().learning_rate, 0.002);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_series_of_worse_candidates_training_rolls_back_to_the_best() {
    let lab = Lab::new(0.4).await;
    lab.post(0..40).await;
    // A rate that ruins the weights; what they end as is not called collapsed here.
    let sets = [
        "snapshots.every_steps=3",
        "schedule.learning_rate=0.1",
        "optimizer.clip_norm=0.0",
        "gate.collapse_spread=0.0",
        "gate.min_pairs=2",
        "gate.confidence=0.6",
        "gate.max_refusals=2",
        "snapshots.recovery_rate=0.5",
    ];
    let trainer = lab.start(config(&sets)).await;
    let status = until(&trainer, |status| status.recoveries >= 1).await;
    let why = status.last_error.unwrap();
    assert!(why.contains("2 candidates in a row were worse"), "{why}");
    until(&trainer, |status| status.rate_scale < 1.0).await;
    // Whatever was found better before is what serves and what training went back to.
    let best = status.resumed_from.unwrap();
    assert!(lab.db.checkpoint(best).await.unwrap().is_some());
    trainer.stop().await.unwrap();
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_ne!(live.verdict, Some(Verdict::Worse));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_near_their_start_are_called_untrained_and_not_collapsed() {
    let lab = Lab::new(0.4).await;
    lab.post(0..30).await;
    // All embeddings look collapsed to this gate; the warm-up is far from over.
    let trainer = lab
        .start(collapsing(&["schedule.warmup_steps=90000"]))
        .await;
    until(&trainer, |status| status.step >= 1).await;
    let id = lab.take(&trainer, None).await.id;
    let rows = until_rows(&lab, |rows| {
        rows.iter().any(|row| row.id == id && row.verdict.is_some())
    })
    .await;
    let row = rows.iter().find(|row| row.id == id).unwrap();
    assert_eq!(row.verdict, Some(Verdict::Untrained));
    let why = row.reason.as_deref().unwrap();
    assert!(
        why.contains("fresh weights") && !why.contains("collapse"),
        "{why}"
    );
    assert_eq!(trainer.status().recoveries, 0);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_is_written_down_at_once() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(collapsing(&[])).await;
    until(&trainer, |status| status.step > 4).await;
    let collapsed = lab.take(&trainer, None).await.id;
    // Further ones may follow.
    until(&trainer, |status| status.recoveries >= 1).await;
    let first_after = |rows: &[CheckpointRow]| {
        let newer = rows.iter().take_while(|row| row.id != collapsed);
        let first = newer
            .last()
            .filter(|row| row.status == CheckpointStatus::Complete);
        first.map(|row| row.id)
    };
    let rows = until_rows(&lab, |rows| first_after(rows).is_some()).await;
    let id = first_after(&rows).unwrap();
    let state = lab.checkpoints.load(id).await.unwrap().trainer;
    assert_eq!((state.rate_scale, state.recovery.tries), (0.5, 1));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_checkpoints_are_replaced_by_fresh_weights_only_when_told_to() {
    let lab = Lab::new(0.0).await;
    let trainer = lab.start(config(&["training.enabled=false"])).await;
    let first: CheckpointId = trainer.status().resumed_from.unwrap();
    trainer.stop().await.unwrap();
    let file = format!("blobs/checkpoints/{first}/model.safetensors");
    std::fs::write(lab.folder.path().join(file), "nothing").unwrap();
    let start = |sets: &[&str]| {
        Trainer::start(
            config(sets),
            kith_nn::Device::cpu(),
            lab.stores(Foreground::new(1.0)),
        )
    };
    let refused = start(&["training.enabled=false"]).await;
    let Err(TrainError::Checkpoint(CheckpointError::AllLost { complete: 1 })) = refused else {
        panic!("a start without a readable checkpoint must be refused");
    };
    let trainer = start(&["training.enabled=false", "storage.accept_loss=true"])
        .await
        .unwrap();
    assert_ne!(trainer.status().resumed_from, Some(first));
    trainer.stop().await.unwrap();
}

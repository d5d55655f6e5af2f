//! Verdicts on checkpoints, and what training makes of them, over restarts too.

use kith::{
    app::{self, App},
    checkpoint::Label,
    db::{CheckpointRow, CheckpointStatus, Verdict},
    train::AlarmKind,
    types::CheckpointId,
};

use crate::{
    first_weights::torchvision_file,
    lab::{Lab, config, png, poll, until},
    support::{settings, start_and_stop},
    train::{newest, train_to_the_end},
    train_life::until_rows,
};

/// Changes the verdict on the checkpoint of `step` behind the server's back.
async fn set_verdict(lab: &Lab, step: i64, verdict: Option<&str>) {
    let mut database = lab.sqlite().await;
    let change = sqlx::query("UPDATE checkpoints SET verdict = ? WHERE step = ?");
    let changed = change.bind(verdict).bind(step);
    let changed = changed.execute(&mut database).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_a_stop_left_unjudged_is_judged_at_the_next_start() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = ["training.max_steps=6", "gate.collapse_spread=0.0"];
    let trainer = lab.start(config(&sets)).await;
    let judged = |rows: &[CheckpointRow]| rows[0].step == 6 && rows[0].verdict.is_some();
    until_rows(&lab, judged).await;
    trainer.stop().await.unwrap();

    set_verdict(&lab, 6, None).await;
    let trainer = lab.start(config(&sets)).await;
    until_rows(&lab, judged).await;
    assert_eq!(trainer.status().recoveries, 0);
    trainer.stop().await.unwrap();

    // A kill came before training went back.
    set_verdict(&lab, 6, Some("collapsed")).await;
    // Without an end no snapshot comes that would take the alarm back.
    let trainer = lab.start(config(&sets[1..])).await;
    let status = until(&trainer, |status| status.recoveries == 1).await;
    assert_eq!(status.alarms[0].alarm, AlarmKind::Collapse);
    trainer.stop().await.unwrap();
}

/// What one checkpoint more is, of the newest one's state with these counts, and what is found out about it.
async fn add(lab: &Lab, (tries, refusals): (u32, u32), verdict: &str) -> CheckpointId {
    let mut snapshot = newest(lab).await;
    let recovery = &mut snapshot.trainer.recovery;
    (recovery.tries, recovery.refusals) = (tries, refusals);
    let label = Label::new(None);
    let step = snapshot.trainer.step;
    lab.checkpoints.begin(&label, step).await.unwrap();
    let written = lab.checkpoints.write(&label, snapshot, None).await;
    assert_eq!(written.unwrap().status, CheckpointStatus::Complete);
    let mut database = lab.sqlite().await;
    let change = sqlx::query(
        "UPDATE checkpoints SET verdict = ? WHERE sequence = (SELECT max(sequence) FROM checkpoints)",
    );
    let changed = change.bind(verdict).execute(&mut database).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    label.id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_on_the_newest_checkpoint_counts_after_a_restart() {
    // Its own files were written before it.
    let table = [
        ("better", (7, 1), (0, 0)),
        ("undecided", (7, 1), (7, 0)),
        ("worse", (7, 1), (7, 2)),
    ];
    for (verdict, before, expected) in table {
        let lab = Lab::new(0.0).await;
        lab.post(0..8).await;
        let sets = |end: u64| {
            let end = format!("training.max_steps={end}");
            config(&["gate.collapse_spread=0.0", "gate.max_refusals=3", &end])
        };
        train_to_the_end(&lab, sets(3)).await;
        let id = add(&lab, before, verdict).await;
        let trainer = lab.start(sets(1000)).await;
        until(&trainer, |status| status.step > 4).await;
        let taken = lab.take(&trainer, None).await;
        let recovery = lab
            .checkpoints
            .load(taken.id)
            .await
            .unwrap()
            .trainer
            .recovery;
        assert_eq!(taken.parent, Some(id));
        assert_eq!((recovery.tries, recovery.refusals), expected, "{verdict}");
        assert_eq!(trainer.status().recoveries, 0);
        trainer.stop().await.unwrap();
    }
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = ["gate.collapse_spread=0.0", "gate.max_refusals=3"];
    train_to_the_end(
        &lab,
        config(&[&sets[..], &["training.max_steps=3"]].concat()),
    )
    .await;
    add(&lab, (0, 2), "worse").await;
    let trainer = lab.start(config(&sets)).await;
    let status = until(&trainer, |status| status.recoveries == 1).await;
    let why = status.last_error.unwrap();
    assert!(why.contains("3 candidates in a row were worse"), "{why}");
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_one_thing_are_alike_by_right_and_no_collapse() {
    let lab = Lab::new(0.0).await;
    let others = lab.post(0..8).await;
    let itself = [[png(50, 0), png(50, 0)]];
    lab.post_images(itself, 0.0).await;
    let trainer = lab
        .start(config(&[
            "training.max_steps=6",
            "gate.collapse_spread=0.0",
        ]))
        .await;
    // A sound one from after the warm-up is there.
    let last = |rows: &[CheckpointRow]| rows[0].step == 6 && rows[0].verdict.is_some();
    until_rows(&lab, last).await;
    trainer.stop().await.unwrap();
    for pair in &others {
        lab.db.delete_pair(pair.id).await.unwrap();
    }
    let trainer = lab.start(config(&["snapshots.every_minutes=0.0001"])).await;
    // Of one image the spread is 0 and the mean cosine 1.
    let judged = |rows: &[CheckpointRow]| {
        let geometry = |row: &CheckpointRow| {
            row.evaluation
                .as_ref()
                .map(|e| e["geometry"]["spread"].clone())
        };
        rows[0].verdict.is_some() && geometry(&rows[0]) == Some(0.0.into())
    };
    let rows = until_rows(&lab, judged).await;
    assert_eq!(
        rows[0].verdict,
        Some(Verdict::Untested),
        "{:?}",
        rows[0].reason
    );
    let status = trainer.status();
    assert_eq!(status.recoveries, 0);
    let collapse = status
        .alarms
        .iter()
        .find(|alarm| alarm.alarm == AlarmKind::Collapse);
    assert_eq!(collapse, None);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_imported_before_the_first_step_are_judged_where_training_is_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    start_and_stop(&folder).await;
    let (id, _) = app::import_weights(&settings(&folder, &[]), &path)
        .await
        .unwrap();
    let app = App::start(settings(&folder, &["training.enabled=true"]))
        .await
        .unwrap();
    let verdict = async || app.db.checkpoint(id).await.unwrap().unwrap().verdict;
    poll(verdict).await.expect("no verdict");
    app.stop().await.unwrap();
}

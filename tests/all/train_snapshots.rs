//! Snapshots while training runs: kept, refused, deleted, and those that cannot be written.

use std::time::Duration;

use kith::{
    checkpoint::{CheckpointError, OriginKind},
    db::{CheckpointRow, CheckpointStatus, Verdict},
    events::Kind,
    foreground::Foreground,
    train::{TrainError, TrainingState, WriteFailure},
};
use kith_mcmc::SlotKey;

use crate::lab::{Lab, config, poll, until};
use crate::train_life::{ALL_SERVE, until_rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_asked_for_outlives_many_newer_ones() {
    let lab = Lab::new(0.4).await;
    lab.post(0..30).await;
    let trainer = lab.start(config(&ALL_SERVE)).await;
    until(&trainer, |status| status.step > 2).await;
    let asked = lab.take(&trainer, Some("before the sale")).await;
    assert!(asked.kept);
    until_rows(&lab, |rows| {
        rows.iter()
            .filter(|row| row.step > asked.step + 8 && row.verdict.is_some())
            .count()
            >= 3
    })
    .await;
    assert!(lab.db.checkpoint(asked.id).await.unwrap().is_some());
    lab.checkpoints.keep(asked.id, false).await.unwrap();
    until_rows(&lab, |rows| rows.iter().all(|row| row.id != asked.id)).await;
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_without_a_step_puts_no_copy_of_what_serves_in_its_place() {
    let lab = Lab::new(0.0).await;
    let pairs = lab.post(0..8).await;
    let sets = ["gate.collapse_spread=0.0", "snapshots.head_pairs=0"];
    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.set_paused(true).await.unwrap();
    let serving = lab.take(&trainer, None).await.id;
    let live = async || Some(lab.db.live_checkpoint().await.unwrap()?.id);
    let serves = async || (live().await == Some(serving)).then_some(());
    assert!(poll(serves).await.is_some());
    // Once the second is judged all is done that follows from the first's verdict.
    for (pair, left) in [(&pairs[0], 7), (&pairs[1], 6)] {
        lab.db.delete_pair(pair.id).await.unwrap();
        until(&trainer, |status| status.pairs == left).await;
        let copy = lab.take(&trainer, None).await.id;
        assert_ne!(copy, serving, "chains were forgotten");
        let judged = async || lab.db.checkpoint(copy).await.unwrap()?.verdict;
        assert_eq!(poll(judged).await, Some(Verdict::Untested));
        let reason = lab.db.checkpoint(copy).await.unwrap().unwrap().reason;
        assert!(
            reason
                .unwrap()
                .contains("weights of the checkpoint that serves")
        );
    }
    assert_eq!(live().await, Some(serving));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_after_the_last_step_is_no_reason_for_a_snapshot_at_once() {
    let lab = Lab::new(0.0).await;
    let pairs = lab.post(0..8).await;
    let sets = [
        "training.max_steps=3",
        "snapshots.every_steps=3",
        "snapshots.head_pairs=0",
    ];
    let trainer = lab.start(config(&sets)).await;
    let rows = until_rows(&lab, |rows| rows[0].step == 3 && rows[0].verdict.is_some()).await;
    let last = rows[0].id;
    let newest = async || lab.db.checkpoints().await.unwrap()[0].id;
    // The status is shown after a look for snapshots that are due.
    for (pair, left) in [(&pairs[0], 7), (&pairs[1], 6)] {
        lab.db.delete_pair(pair.id).await.unwrap();
        until(&trainer, |status| status.pairs == left).await;
        assert_eq!(newest().await, last);
    }
    trainer.stop().await.unwrap();
    assert_ne!(newest().await, last, "the stop keeps what has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_one_step_are_one_and_a_quota_refuses_more() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let trainer = lab.start(config(&["retention.max_kept=2"])).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.set_paused(true).await.unwrap();
    let mut ids = Vec::new();
    for note in ["one", "two", "two"] {
        ids.push(lab.take(&trainer, Some(note)).await.id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let row = lab.db.checkpoint(ids[0]).await.unwrap().unwrap();
    assert_eq!(row.note.as_deref(), Some("one; two"));

    let go_on = async |steps: u64| {
        let now = trainer.status().step;
        trainer.set_paused(false).await.unwrap();
        until(&trainer, |status| status.step > now + steps).await;
        trainer.set_paused(true).await.unwrap();
    };
    go_on(1).await;
    lab.take(&trainer, None).await;
    go_on(1).await;
    let refused = trainer.snapshot(None).await.unwrap_err();
    assert!(
        matches!(
            refused,
            TrainError::Checkpoint(CheckpointError::Quota { kept: 2 })
        ),
        "{refused}"
    );
    lab.checkpoints.keep(ids[0], false).await.unwrap();
    assert_eq!(
        lab.take(&trainer, None).await.status,
        CheckpointStatus::Complete
    );
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automatic_snapshot_that_is_asked_for_is_kept_from_then_on() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let trainer = lab.start(config(&["training.max_steps=4"])).await;
    let taken = |rows: &[CheckpointRow]| rows[0].step == 4 && rows[0].verdict.is_some();
    let automatic = until_rows(&lab, taken).await.swap_remove(0);
    assert!(!automatic.kept);
    let asked = lab.take(&trainer, Some("mine")).await;
    assert_eq!((asked.id, asked.kept), (automatic.id, true));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_could_not_save_is_saved_by_the_stop() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.set_paused(true).await.unwrap();
    lab.block_checkpoints();
    let id = trainer.snapshot(None).await.unwrap();
    trainer.written(id).await.unwrap_err();
    lab.unblock_checkpoints();
    let step = trainer.status().step;
    trainer.stop().await.unwrap();
    let (_, newest) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(newest.trainer.step, step);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_just_before_a_snapshot_is_not_in_it() {
    let lab = Lab::new(0.0).await;
    let rows = lab.post(0..12).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.epoch >= 3).await;
    for row in &rows[..4] {
        lab.db.delete_pair(row.id).await.unwrap();
        let id = lab.take(&trainer, None).await.id;
        let chains = lab.checkpoints.load(id).await.unwrap().chains;
        let slots = chains.anchor.iter().chain(&chains.negative);
        let pairs: Vec<u32> = slots
            .map(|slot| SlotKey::from_packed(*slot).pair().0)
            .collect();
        assert!(!pairs.is_empty() && !pairs.contains(&row.key.0));
    }
    assert_eq!(
        lab.db.erasures_after(0, 10).await.unwrap().len(),
        0,
        "what was taken note of need not be kept"
    );
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_training_off_weights_and_moments_stay_on_the_disk_and_a_snapshot_has_them_without_erased_chains()
 {
    let lab = Lab::new(0.0).await;
    let rows = lab.post(0..12).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.epoch >= 3).await;
    trainer.stop().await.unwrap();
    let newest = lab.checkpoints.newest().await.unwrap().unwrap();
    let before = newest.1;
    assert!(before.optimizer.len() > 1, "it has moments");

    let trainer = lab.start(config(&["training.enabled=false"])).await;
    until(&trainer, |status| status.chains > 0).await;
    lab.db.delete_pair(rows[0].id).await.unwrap();
    let after = lab.take(&trainer, None).await.id;
    let after = lab.checkpoints.load(after).await.unwrap();
    assert_eq!(after.model, before.model);
    assert_eq!(after.optimizer, before.optimizer);
    assert_eq!(
        (after.trainer, after.origin),
        (before.trainer, before.origin)
    );
    let slots = after.chains.anchor.iter().chain(&after.chains.negative);
    let mut pairs = slots.map(|slot| SlotKey::from_packed(*slot).pair());
    assert!(pairs.all(|pair| pair != rows[0].key));
    assert!(!after.chains.anchor.is_empty());

    // Without its checkpoint nothing is left of it: no copy is in memory.
    lab.db.delete_pair(rows[1].id).await.unwrap();
    let id = newest.0;
    assert_eq!(trainer.status().resumed_from, Some(id));
    let folder = lab.folder.path().join(format!("blobs/checkpoints/{id}"));
    std::fs::remove_dir_all(folder).unwrap();
    let refused = trainer.snapshot(None).await;
    assert!(
        matches!(&refused, Err(TrainError::Unavailable(why)) if why.contains("missing")),
        "{refused:?}"
    );
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_snapshot_that_cannot_be_written_is_the_stops_error() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.step > 2).await;
    lab.block_checkpoints();
    let stopped = trainer.stop().await;
    assert!(
        matches!(stopped, Err(TrainError::Unsaved(_))),
        "{stopped:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_written_is_told_to_its_caller_and_training_goes_on() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.step > 2).await;
    lab.block_checkpoints();
    let id = trainer.snapshot(None).await.unwrap();
    let refused = trainer.written(id).await;
    let Err(TrainError::Unwritten { id: named, failure }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((named, failure), (id, WriteFailure::Other));
    lab.unblock_checkpoints();
    let next = lab.take(&trainer, None).await;
    // Its parent was never written, and where the weights began is known all the same.
    assert_eq!(next.parent, Some(id));
    let manifest = lab.checkpoints.manifest(next.id).await.unwrap();
    assert_eq!(manifest.origin.unwrap().kind, OriginKind::Fresh);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_weights_that_are_not_finite_is_refused_as_such() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    // The largest rate there is: step and decay together go beyond f32.
    let sets = [
        "schedule.learning_rate=3.4e38",
        "schedule.warmup_steps=0",
        "optimizer.weight_decay=0.9",
        "training.max_skipped=3",
    ];
    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.state == TrainingState::Failed).await;
    let mut events = lab.checkpoints.events().watch(0);
    let id = trainer.snapshot(None).await.unwrap();
    let refused = trainer.written(id).await;
    assert!(
        matches!(
            refused,
            Err(TrainError::Unwritten {
                failure: WriteFailure::NotFinite,
                ..
            })
        ),
        "{refused:?}"
    );
    // Who watches is told, too.
    let failed = async {
        loop {
            let event = events.next().await;
            if event.kind == Kind::Checkpoint && event.data["status"] == "failed" {
                return event;
            }
        }
    };
    let failed = tokio::time::timeout(Duration::from_secs(60), failed).await;
    let data = &failed.expect("no event").data;
    assert_eq!(data["checkpoint"], id.to_string());
    assert_eq!(data["reason"], "the weights are not finite");
    // That is the last snapshot, so the stop says so, too.
    trainer.stop().await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_deleted_before_it_was_judged_is_no_error() {
    let lab = Lab::new(0.5).await;
    lab.post(0..24).await;
    let trainer = lab.start(config(&[])).await;
    for _ in 0..6 {
        let before = trainer.status().step;
        until(&trainer, |status| status.step > before).await;
        let id = trainer.snapshot(None).await.unwrap();
        trainer.written(id).await.unwrap();
        match lab.checkpoints.delete(id).await {
            // It was judged and promoted first.
            Err(CheckpointError::Live(_)) => {}
            deleted => deleted.unwrap(),
        }
    }
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    // One more, so that those before it have been through the judge.
    let row = lab.take(&trainer, None).await;
    until_rows(&lab, |rows| {
        rows.iter().any(|r| r.id == row.id && r.verdict.is_some())
    })
    .await;
    assert_eq!(trainer.status().last_error, None, "{live:?}");
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_keeps_the_range_of_its_embeddings_and_fresh_weights_have_none() {
    let lab = Lab::new(0.0).await;
    let trainer = lab.start(config(&[])).await;
    let fresh = trainer.status().resumed_from.unwrap();
    assert_eq!(lab.checkpoints.manifest(fresh).await.unwrap().range, None);
    lab.post(0..8).await;
    until(&trainer, |status| status.step > 2).await;
    let id = trainer.snapshot(None).await.unwrap();
    trainer.written(id).await.unwrap();
    let range = lab.checkpoints.manifest(id).await.unwrap().range.unwrap();
    // Of 16 values of a unit vector the largest is at least 1 / 4; rounding may take it a little beyond 1.
    assert!((0.25..1.001).contains(&range), "{range}");
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn training_stands_still_beside_requests_but_not_for_a_caller_who_waits_for_it() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let foreground = Foreground::new(0.0);
    let trainer = lab.start_behind(config(&[]), foreground.clone()).await;
    until(&trainer, |status| status.step > 2).await;
    let request = foreground.enter();
    lab.take(&trainer, None).await;
    // The step that it is in may end.
    let step = trainer.status().step;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(trainer.status().step <= step + 1);
    drop(request);
    until(&trainer, |status| status.step > step + 1).await;
    trainer.stop().await.unwrap();
}

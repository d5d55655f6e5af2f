//! Training as a whole, on a tiny encoder: exact resumption, pairs that come and go, failures that do not spread.

use std::collections::HashSet;

use kith::{
    checkpoint::Snapshot,
    db::{CheckpointStatus, Split},
    foreground::Foreground,
    train::{TrainConfig, TrainError, Trainer, TrainingState},
    types::CheckpointId,
};
use kith_mcmc::{SlotKey, StateKind};
use kith_nn::{Device, NamedArray};

use crate::lab::{Lab, collapsing, config, until};

/// Trains to the configured end and answers what the last checkpoint holds.
pub(crate) async fn train_to_the_end(lab: &Lab, config: TrainConfig) -> Snapshot {
    let end = config.run.max_steps;
    let trainer = lab.start(config).await;
    until(&trainer, |status| {
        status.step == end && status.state == TrainingState::Waiting
    })
    .await;
    trainer.stop().await.unwrap();
    newest(lab).await
}

pub(crate) async fn newest(lab: &Lab) -> Snapshot {
    lab.checkpoints.newest().await.unwrap().unwrap().1
}

async fn snapshot(lab: &Lab, trainer: &Trainer) -> Snapshot {
    let row = lab.take(trainer, None).await;
    assert_eq!(row.status, CheckpointStatus::Complete, "{:?}", row.reason);
    lab.checkpoints.load(row.id).await.unwrap()
}

/// Pairs of a chain's anchor or of its state.
fn pairs_in_chains(snapshot: &Snapshot) -> HashSet<u32> {
    let chains = &snapshot.chains;
    let slots = chains.anchor.iter().chain(&chains.negative);
    slots
        .map(|slot| SlotKey::from_packed(*slot).pair().0)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_stopped_half_way_ends_bit_for_bit_like_one_that_was_not() {
    let objectives = [
        ("emc2", 1),
        ("sogclr", 1),
        ("scent", 1),
        ("neuclip", 1),
        ("exact", 1),
        ("emc2", 2),
    ];
    for (objective, towers) in objectives {
        let objective = format!("learning.objective={objective}");
        let towers = format!("encoder.towers={towers}");
        let until = |steps: &str, others: &[&str]| {
            let steps = format!("training.max_steps={steps}");
            let average = "learning.average_steps=3";
            config(&[&[&objective[..], &towers[..], &steps[..], average], others].concat())
        };
        let straight = Lab::new(0.0).await;
        straight.post(0..11).await;
        let expected = train_to_the_end(&straight, until("8", &[])).await;

        let halved = Lab::new(0.0).await;
        halved.post(0..11).await;
        let half = train_to_the_end(&halved, until("4", &[])).await;
        assert_eq!(half.trainer.step, 4);
        let others = ["training.prefetch=3", "training.loader_threads=2"];
        let resumed = train_to_the_end(&halved, until("8", &others)).await;

        assert_eq!(expected.trainer.step, 8);
        assert_eq!(resumed.trainer, expected.trainer);
        assert_eq!(resumed.chains, expected.chains);
        let has_states = !expected.chains.anchor.is_empty();
        let stateless = ["exact", "neuclip"]
            .iter()
            .any(|name| objective.ends_with(name));
        assert_eq!(has_states, !stateless);
        let is_prototype = |array: &NamedArray| array.name.starts_with("prototypes.");
        let has_prototypes = expected.optimizer.iter().any(is_prototype);
        assert_eq!(has_prototypes, objective.ends_with("neuclip"));
        assert_eq!(resumed.optimizer, expected.optimizer);
        assert_eq!(resumed.model, expected.model);
        assert_ne!(half.model, expected.model);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_the_objective_as_the_settings_do() {
    let emc2 = [("emc2", "emc2 (subset)")];
    let others = [
        "infonce",
        "sogclr",
        "scent",
        "neuclip",
        "negative_cache",
        "exact",
    ];
    for (objective, shown) in emc2.into_iter().chain(others.map(|name| (name, name))) {
        let lab = Lab::new(0.0).await;
        let objective = format!("learning.objective={objective}");
        let trainer = lab
            .start(config(&[&objective, "training.enabled=false"]))
            .await;
        assert_eq!(trainer.status().objective, shown);
        trainer.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_objective_goes_on_from_the_weights_and_not_from_states_that_mean_something_else() {
    let lab = Lab::new(0.0).await;
    lab.post(0..11).await;
    let averages = ["learning.objective=sogclr", "training.max_steps=4"];
    let before = train_to_the_end(&lab, config(&averages)).await;
    assert_eq!(before.chains.kind, StateKind::Averages);
    assert_eq!(before.chains.negative, before.chains.anchor);
    let after = train_to_the_end(&lab, config(&["training.max_steps=6"])).await;
    assert_eq!(
        (after.trainer.step, after.chains.kind),
        (6, StateKind::Chains)
    );
    let chains = after.chains.anchor.iter().zip(&after.chains.negative);
    assert!(chains.clone().count() > 0);
    assert!(
        chains
            .into_iter()
            .all(|(anchor, negative)| anchor / 2 != negative / 2)
    );
    assert!(after.chains.step.iter().all(|step| *step >= 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_writes_and_promotes_checkpoint_0_even_when_it_does_not_train() {
    let lab = Lab::new(0.0).await;
    let trainer = lab.start(config(&["training.enabled=false"])).await;
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!((live.step, live.status), (0, CheckpointStatus::Complete));
    assert_eq!(trainer.status().resumed_from, Some(live.id));
    let status = until(&trainer, |status| {
        status.waiting_for.as_deref() == Some("training.enabled is false")
    })
    .await;
    assert_eq!(status.state, TrainingState::Waiting);
    assert_eq!(snapshot(&lab, &trainer).await.trainer.step, 0);
    // What has no effect is refused, not answered as if it had.
    for refused in [
        trainer.set_paused(true).await,
        trainer.set_learning_rate(Some(1e-4)).await,
    ] {
        assert!(matches!(refused, Err(TrainError::Disabled)), "{refused:?}");
    }
    trainer.stop().await.unwrap();
    assert!(matches!(
        trainer.snapshot(None).await,
        Err(TrainError::Stopped)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_posted_and_erased_while_training_runs_join_and_leave_it() {
    let lab = Lab::new(0.0).await;
    lab.post(0..2).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| {
        status.waiting_for.as_deref() == Some("4 training pairs, 2 are there")
    })
    .await;
    let late = lab.post(2..6).await;
    until(&trainer, |status| status.pairs == 6 && status.epoch >= 3).await;
    let late: HashSet<u32> = late.iter().map(|row| row.key.0).collect();
    let before = snapshot(&lab, &trainer).await;
    assert!(late.is_subset(&pairs_in_chains(&before)));

    let gone = lab
        .db
        .pairs_after(kith_mcmc::PairKey(0), 1, None)
        .await
        .unwrap();
    assert!(lab.db.delete_pair(gone[0].id).await.unwrap());
    until(&trainer, |status| status.pairs == 5).await;
    let after = snapshot(&lab, &trainer).await;
    assert!(pairs_in_chains(&before).contains(&gone[0].key.0));
    assert!(!pairs_in_chains(&after).contains(&gone[0].key.0));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn training_waits_while_all_pairs_are_of_one_group_and_goes_on_with_a_stranger() {
    let lab = Lab::new(0.0).await;
    lab.post_in(0..6, Some("all")).await;
    let trainer = lab.start(config(&[])).await;
    let status = until(&trainer, |status| status.pairs == 6).await;
    assert_eq!((status.state, status.step), (TrainingState::Waiting, 0));
    let reason = status.waiting_for.unwrap_or_default();
    assert!(reason.contains("all 6 pairs share a group"), "{reason}");
    lab.post(6..7).await;
    until(&trainer, |status| {
        status.state == TrainingState::Running && status.chains > 0
    })
    .await;
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_erased_while_the_server_was_down_is_forgotten_at_the_next_start() {
    let lab = Lab::new(0.0).await;
    let rows = lab.post(0..6).await;
    let before = train_to_the_end(&lab, config(&["training.max_steps=6"])).await;
    assert!(pairs_in_chains(&before).contains(&rows[0].key.0));
    lab.db.delete_pair(rows[0].id).await.unwrap();
    let trainer = lab.start(config(&["training.max_steps=6"])).await;
    let after = snapshot(&lab, &trainer).await;
    assert!(!pairs_in_chains(&after).contains(&rows[0].key.0));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_pairs_are_judged_on_and_never_trained_on() {
    let lab = Lab::new(0.4).await;
    let rows = lab.post(0..30).await;
    let keys = |split| -> HashSet<u32> {
        rows.iter()
            .filter(|row| row.split == split)
            .map(|row| row.key.0)
            .collect()
    };
    let (trained, held_out) = (keys(Split::Train), keys(Split::Holdout));
    assert!(held_out.len() >= 5 && trained.len() >= 5);
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.epoch >= 2).await;
    let state = snapshot(&lab, &trainer).await;
    assert!(pairs_in_chains(&state).is_subset(&trained));
    assert!(!state.chains.anchor.is_empty());
    assert_eq!(trainer.status().pairs as usize, trained.len());
    let set = lab.checkpoints.held_out_set(100).await.unwrap();
    assert_eq!(set.anchors.len(), held_out.len());
    let fewer = lab.checkpoints.held_out_set(3).await.unwrap();
    assert_eq!(fewer.anchors.len(), 3);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_asked_for_at_once_are_one() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.step > 1).await;
    // Sent without waiting in between, they are all heard at one boundary, or at two if a step ends in the middle.
    let asked = (0..8).map(|_| trainer.snapshot(None));
    let ids: HashSet<CheckpointId> = futures::future::join_all(asked)
        .await
        .into_iter()
        .map(|id| id.unwrap())
        .collect();
    assert!(ids.len() <= 2, "{ids:?}");
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_blows_up_skips_counts_and_stops_training_only() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = [
        "schedule.learning_rate=1e30",
        "training.max_skipped=3",
        "optimizer.kind=sgd",
    ];
    let trainer = lab.start(config(&sets)).await;
    let status = until(&trainer, |status| status.state == TrainingState::Failed).await;
    assert_eq!(status.skipped, 3);
    assert!(status.last_error.unwrap().contains("3 steps in a row"));
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!(live.step, 0);
    // Resumed at a sane rate it goes back to weights that are finite.
    trainer.set_learning_rate(Some(1e-4)).await.unwrap();
    trainer.set_paused(false).await.unwrap();
    until(&trainer, |status| {
        status.state == TrainingState::Running && status.step > 3
    })
    .await;
    let state = snapshot(&lab, &trainer).await;
    assert!(
        state
            .model
            .iter()
            .all(|array| array.data.iter().all(|x| x.is_finite()))
    );
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collapse_is_recovered_from_at_a_lower_rate() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let sets = ["snapshots.every_steps=6", "snapshots.recovery_rate=0.5"];
    let trainer = lab.start(collapsing(&sets)).await;
    until(&trainer, |status| status.recoveries >= 2).await;
    trainer.stop().await.unwrap();
    let state = newest(&lab).await;
    assert!(
        state.trainer.rate_scale <= 0.25,
        "{}",
        state.trainer.rate_scale
    );
    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!(live.step, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_passes_the_gate_goes_live_with_its_evaluation() {
    let lab = Lab::new(0.4).await;
    lab.post(0..30).await;
    // Nothing counts as collapsed, and no recall is asked for.
    let sets = [
        "gate.collapse_spread=0.0",
        "gate.min_pairs=1000",
        "snapshots.every_steps=4",
        "training.max_steps=4",
    ];
    let trainer = lab.start(config(&sets)).await;
    let live = || async { lab.db.live_checkpoint().await.unwrap().unwrap() };
    let promoted = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while live().await.step != 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        live().await
    });
    let promoted = promoted.await.unwrap();
    assert!(promoted.evaluation.is_some());
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shape_is_refused_by_name_and_a_damaged_live_one_replaced() {
    let lab = Lab::new(0.0).await;
    lab.post(0..6).await;
    train_to_the_end(&lab, collapsing(&["training.max_steps=3"])).await;
    let refused = Trainer::start(
        config(&["encoder.width=16"]),
        Device::cpu(),
        lab.stores(Foreground::new(1.0)),
    )
    .await;
    let Err(TrainError::Invalid(message)) = refused else {
        panic!("a start with another width must be refused");
    };
    assert!(message.contains("width 8") && message.contains("width 16"));

    let live = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!(live.step, 0);
    let file = lab
        .folder
        .path()
        .join(format!("blobs/checkpoints/{}/model.safetensors", live.id));
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let trainer = lab.start(config(&["training.enabled=false"])).await;
    assert_eq!(lab.db.live_checkpoint().await.unwrap().unwrap().step, 3);
    trainer.stop().await.unwrap();
}

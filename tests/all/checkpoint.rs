//! Checkpoints: an incomplete or damaged one is never loaded, and the live one always loads.

use bytes::Bytes;
use kith::{
    blobs::BlobKey,
    checkpoint::{
        CheckpointError, CollapseWatch, Label, MANIFEST, Origin, OriginKind, PARTS, RecentDraws,
        Recovery, Snapshot, TrainerState,
    },
    db::{CheckpointRole, CheckpointStatus},
    types::CheckpointId,
};
use kith_mcmc::{ChainColumns, StateKind};
use kith_nn::NamedArray;

use crate::lab::{Lab, config};

fn snapshot(step: u64) -> Snapshot {
    let array = |name: &str, scale: f32| NamedArray {
        name: name.to_owned(),
        shape: vec![2, 3],
        data: (0..6).map(|x| x as f32 * scale + step as f32).collect(),
    };
    Snapshot {
        encoder: config(&[]).encoder,
        model: vec![array("conv1.weight", 0.1), array("fc.weight", 0.7)],
        optimizer: vec![array("conv1.weight.m", 1e-9)],
        chains: ChainColumns {
            kind: StateKind::Chains,
            anchor: vec![2, 5],
            negative: vec![7, 4],
            log_score: vec![0.5, -0.25],
            step: vec![1, 2],
            visits: vec![3, 4],
            visits_since_move: vec![0, 1],
        },
        trainer: TrainerState {
            step,
            seed: u64::MAX,
            epoch: 3,
            cursor: Some((u64::MAX - 1, 12)),
            rate_scale: 0.5,
            rate_override: Some(1e-4),
            skipped: 2,
            recovery: Recovery {
                tries: 1,
                since: 4,
                refusals: 2,
            },
            watch: CollapseWatch {
                steps: 9,
                // Not a short decimal: it must come back to the last bit.
                spread: 1.0 / 3.0,
                mean_cosine: 0.1 + 0.2,
                quiet_until: 7,
            },
            recent: Some(RecentDraws {
                after: 5,
                next: 8,
                moved: 4,
                epoch: 2,
                cursor: Some((u64::MAX - 2, 6)),
            }),
            snapshot_pairs: 7,
        },
        origin: Some(Origin {
            kind: OriginKind::File,
            file: Some("resnet18.pth".to_owned()),
            sha256: None,
            projection: None,
            dropped: vec!["fc.weight".to_owned()],
            step: 3,
        }),
    }
}

async fn write(lab: &Lab, step: u64) -> CheckpointId {
    let label = Label {
        note: Some("by hand".to_owned()),
        ..Label::new(None)
    };
    lab.checkpoints.begin(&label, step).await.unwrap();
    let row = lab
        .checkpoints
        .write(&label, snapshot(step), None)
        .await
        .unwrap();
    assert_eq!((row.status, row.step), (CheckpointStatus::Complete, step));
    label.id
}

async fn flip(lab: &Lab, id: CheckpointId, name: &str) {
    let key = BlobKey::CheckpointPart(id, name.to_owned());
    let mut bytes = lab.blobs.get(&key).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    lab.blobs.put(&key, Bytes::from(bytes)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_back_and_the_manifest_adds_up() {
    let lab = Lab::new(0.0).await;
    let id = write(&lab, 9).await;
    assert_eq!(lab.checkpoints.load(id).await.unwrap(), snapshot(9));
    let manifest = lab.checkpoints.manifest(id).await.unwrap();
    let names: Vec<&str> = manifest
        .parts
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    assert_eq!(names, PARTS);
    let row = lab.db.checkpoint(id).await.unwrap().unwrap();
    assert_eq!(row.bytes, manifest.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_in_the_weights_sends_a_start_to_the_older_checkpoint() {
    let lab = Lab::new(0.0).await;
    let older = write(&lab, 1).await;
    let newer = write(&lab, 2).await;
    flip(&lab, newer, "model.safetensors").await;
    let error = lab.checkpoints.load(newer).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
    let found = lab.checkpoints.newest().await.unwrap();
    assert_eq!(found, Some((older, snapshot(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_lost_part_starts_anew_and_the_weights_are_kept() {
    for name in PARTS.iter().filter(|name| !name.starts_with("model")) {
        for lost in [false, true] {
            let lab = Lab::new(0.0).await;
            write(&lab, 1).await;
            let id = write(&lab, 2).await;
            if lost {
                let key = BlobKey::CheckpointPart(id, (*name).to_owned());
                lab.blobs.delete(&key).await.unwrap();
            } else {
                flip(&lab, id, name).await;
            }
            let (found, loaded) = lab.checkpoints.newest().await.unwrap().unwrap();
            let whole = snapshot(2);
            assert_eq!((found, &loaded.model), (id, &whole.model), "{name}");
            assert_eq!(loaded.trainer.step, 2, "{name}");
            assert_eq!(loaded.optimizer.is_empty(), name.starts_with("optimizer"));
            let chains_anew = loaded.chains == ChainColumns::default();
            assert_eq!(chains_anew, name.starts_with("chains"));
            assert_eq!(loaded.trainer != whole.trainer, name.starts_with("trainer"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_weights_are_lost_the_loss_is_named_and_nothing_starts_anew() {
    let lab = Lab::new(0.0).await;
    assert_eq!(lab.checkpoints.newest().await.unwrap(), None);
    for step in [1, 2] {
        let id = write(&lab, step).await;
        flip(&lab, id, "model.safetensors").await;
    }
    let error = lab.checkpoints.newest().await.unwrap_err();
    assert!(matches!(error, CheckpointError::AllLost { complete: 2 }));
    assert!(error.to_string().contains("storage.accept_loss"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_is_the_one_taken_last_whatever_the_clock_said() {
    let lab = Lab::new(0.0).await;
    // The machine's clock was years ahead when the first one was taken.
    let ahead = Label {
        id: CheckpointId("ffffffff-ffff-7fff-bfff-ffffffffffff".parse().unwrap()),
        ..Label::new(None)
    };
    lab.checkpoints.begin(&ahead, 1).await.unwrap();
    lab.checkpoints
        .write(&ahead, snapshot(1), None)
        .await
        .unwrap();
    let later = write(&lab, 2).await;
    assert!(later < ahead.id);
    let (found, _) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(found, later);
    let listed = lab.db.checkpoints().await.unwrap();
    let order: Vec<CheckpointId> = listed.iter().map(|row| row.id).collect();
    assert_eq!(order, [later, ahead.id]);
    // Rows that are lost come back in the same order, from the manifests.
    for id in order {
        lab.db.delete_checkpoint(id).await.unwrap();
    }
    let (found, _) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(found, later);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_are_not_finite_are_neither_promoted_nor_loaded() {
    let lab = Lab::new(0.0).await;
    let good = write(&lab, 1).await;
    let label = Label::new(None);
    let mut broken = snapshot(2);
    broken.model[0].data[3] = f32::NAN;
    lab.checkpoints.begin(&label, 2).await.unwrap();
    lab.checkpoints.write(&label, broken, None).await.unwrap();
    for refused in [
        lab.checkpoints.promote(label.id, true).await.unwrap_err(),
        lab.checkpoints.load_model(label.id).await.unwrap_err(),
    ] {
        assert!(matches!(refused, CheckpointError::NotFinite(id) if id == label.id));
    }
    let (found, _) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(found, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_use_is_not_pruned() {
    let lab = Lab::new(0.0).await;
    let mut ids = Vec::new();
    for step in 0..10 {
        let label = Label::new(None);
        lab.checkpoints.begin(&label, step).await.unwrap();
        lab.checkpoints
            .write(&label, snapshot(step), None)
            .await
            .unwrap();
        ids.push(label.id);
    }
    lab.checkpoints.promote(ids[0], true).await.unwrap();
    lab.checkpoints.keep(ids[1], true).await.unwrap();
    lab.checkpoints
        .set_alias("shop", Some(ids[2]), None)
        .await
        .unwrap();
    let download = lab.checkpoints.begin_use(ids[3]);
    // keep_latest is 3 by default.
    assert_eq!(lab.checkpoints.prune().await.unwrap(), ids[4..7]);
    drop(download);
    assert_eq!(lab.checkpoints.prune().await.unwrap(), ids[3..4]);
    let refused = lab.checkpoints.delete(ids[2]).await.unwrap_err();
    assert!(matches!(refused, CheckpointError::Aliased(_)), "{refused}");
    lab.checkpoints.set_alias("shop", None, None).await.unwrap();
    lab.checkpoints.keep(ids[1], false).await.unwrap();
    assert_eq!(lab.checkpoints.prune().await.unwrap(), ids[1..3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_manifest_a_checkpoint_is_torn_and_its_leftovers_go() {
    let lab = Lab::new(0.0).await;
    let older = write(&lab, 1).await;
    // As a kill in the middle of writing leaves it: a row that says `writing`, parts, no manifest.
    let torn = Label::new(None);
    lab.checkpoints.begin(&torn, 2).await.unwrap();
    let key = BlobKey::CheckpointPart(torn.id, "model.safetensors".to_owned());
    lab.blobs
        .put(&key, Bytes::from_static(b"half"))
        .await
        .unwrap();
    let (found, _) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(found, older);
    let row = lab.db.checkpoint(torn.id).await.unwrap().unwrap();
    assert_eq!(row.status, CheckpointStatus::Failed);
    assert!(!lab.blobs.exists(&key).await.unwrap());
    assert!(lab.checkpoints.promote(torn.id, true).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_manifest_and_row_loses_nothing() {
    let lab = Lab::new(0.0).await;
    write(&lab, 1).await;
    let id = write(&lab, 2).await;
    lab.db.delete_checkpoint(id).await.unwrap();
    let found = lab.checkpoints.newest().await.unwrap();
    assert_eq!(found, Some((id, snapshot(2))));
    let row = lab.db.checkpoint(id).await.unwrap().unwrap();
    assert_eq!((row.status, row.step), (CheckpointStatus::Complete, 2));
    assert_eq!(row.note.as_deref(), Some("by hand"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_is_not_promoted_and_the_live_one_not_deleted() {
    let lab = Lab::new(0.0).await;
    let (live, other) = (write(&lab, 1).await, write(&lab, 2).await);
    lab.checkpoints.promote(live, true).await.unwrap();
    flip(&lab, other, "model.safetensors").await;
    assert!(lab.checkpoints.promote(other, true).await.is_err());
    let refused = lab.checkpoints.delete(live).await.unwrap_err();
    assert!(matches!(refused, CheckpointError::Live(id) if id == live));
    lab.checkpoints.delete(other).await.unwrap();
    assert!(lab.db.checkpoint(other).await.unwrap().is_none());
    let manifest = BlobKey::CheckpointPart(other, MANIFEST.to_owned());
    assert!(!lab.blobs.exists(&manifest).await.unwrap());
    let row = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!((row.id, row.role), (live, CheckpointRole::Live));
}

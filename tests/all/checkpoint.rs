//! Checkpoints: a torn or damaged one is never loaded, what serves is always whole.

use bytes::Bytes;
use kith::{
    blobs::BlobKey,
    checkpoint::{CheckpointError, Label, MANIFEST, PARTS, Snapshot, TrainerState},
    db::{CheckpointRole, CheckpointStatus},
    mcmc::{ChainColumns, StateKind},
    types::{CheckpointId, NamedArray},
};

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
            still: vec![0, 1],
        },
        trainer: TrainerState {
            step,
            seed: u64::MAX,
            epoch: 3,
            cursor: Some((u64::MAX - 1, 12)),
            rate_scale: 0.5,
            rate_override: Some(1e-4),
            skipped: 2,
        },
    }
}

async fn write(lab: &Lab, step: u64) -> CheckpointId {
    let label = Label {
        id: CheckpointId::now(),
        note: Some("by hand".to_owned()),
        parent: None,
    };
    lab.checkpoints.begin(&label, step).await.unwrap();
    let row = lab.checkpoints.write(&label, snapshot(step)).await.unwrap();
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
async fn one_flipped_bit_in_a_part_sends_a_start_to_the_older_checkpoint() {
    for name in PARTS.iter().filter(|name| !name.starts_with("chains")) {
        let lab = Lab::new(0.0).await;
        let older = write(&lab, 1).await;
        let newer = write(&lab, 2).await;
        flip(&lab, newer, name).await;
        let error = lab.checkpoints.load(newer).await.unwrap_err();
        assert!(
            matches!(error, CheckpointError::Damaged { .. }),
            "{name}: {error}"
        );
        let found = lab.checkpoints.newest().await.unwrap();
        assert_eq!(found, Some((older, snapshot(1))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_chains_alone_cost_the_chains_and_nothing_else() {
    let lab = Lab::new(0.0).await;
    let id = write(&lab, 2).await;
    flip(&lab, id, "chains.safetensors").await;
    let expected = Snapshot {
        chains: ChainColumns::default(),
        ..snapshot(2)
    };
    assert_eq!(
        lab.checkpoints.newest().await.unwrap(),
        Some((id, expected))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_manifest_a_checkpoint_is_torn_and_its_leftovers_go() {
    let lab = Lab::new(0.0).await;
    let older = write(&lab, 1).await;
    // As a kill in the middle of writing leaves it: a row that says `writing`, parts, no manifest.
    let torn = Label {
        id: CheckpointId::now(),
        note: None,
        parent: None,
    };
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
    assert!(lab.checkpoints.promote(torn.id).await.is_err());
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
    lab.checkpoints.promote(live).await.unwrap();
    flip(&lab, other, "model.safetensors").await;
    assert!(lab.checkpoints.promote(other).await.is_err());
    let refused = lab.checkpoints.delete(live).await.unwrap_err();
    assert!(matches!(refused, CheckpointError::Live(id) if id == live));
    lab.checkpoints.delete(other).await.unwrap();
    assert!(lab.db.checkpoint(other).await.unwrap().is_none());
    let manifest = BlobKey::CheckpointPart(other, MANIFEST.to_owned());
    assert!(!lab.blobs.exists(&manifest).await.unwrap());
    let row = lab.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!((row.id, row.role), (live, CheckpointRole::Live));
}

//! Blobs: what is put is there whole, or not at all.

use bytes::Bytes;
use kith::{
    blobs::{BlobError, BlobKey, Blobs},
    types::{CheckpointId, Sha256},
};

fn image(content: &[u8]) -> BlobKey {
    BlobKey::Image(Sha256::digest(content))
}

fn part(id: CheckpointId, name: &str) -> BlobKey {
    BlobKey::CheckpointPart(id, name.into())
}

/// All files below `folder`, relative to it.
fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            found.extend(files(&path).iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_was_put_is_got_by_another_handle_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let key = image(b"one");
    assert!(!blobs.exists(&key).await.unwrap());
    blobs.put(&key, Bytes::from_static(b"first")).await.unwrap();
    blobs.put(&key, Bytes::from_static(b"one")).await.unwrap();

    let again = Blobs::local(folder.path()).unwrap();
    assert!(again.exists(&key).await.unwrap());
    assert_eq!(again.get(&key).await.unwrap(), "one");

    again.delete(&key).await.unwrap();
    assert!(!blobs.exists(&key).await.unwrap());
    assert!(matches!(blobs.get(&key).await, Err(BlobError::NotFound(_))));
    blobs
        .delete(&key)
        .await
        .expect("a missing blob is no error");
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn an_image_lies_under_the_first_two_digits_of_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    blobs
        .put(&image(b"one"), Bytes::from_static(b"one"))
        .await
        .unwrap();
    let hash = Sha256::digest(b"one").to_string();
    assert_eq!(
        files(folder.path()),
        [format!("images/{}/{hash}", &hash[..2])]
    );
}

#[tokio::test]
async fn checkpoints_are_listed_with_their_parts_until_the_last_one_goes() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    assert!(blobs.checkpoint_ids().await.unwrap().is_empty());
    let (older, newer) = (CheckpointId::now(), CheckpointId::now());
    for key in [
        part(newer, "model.safetensors"),
        part(older, "manifest.json"),
        part(newer, "chains.safetensors"),
    ] {
        blobs.put(&key, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(blobs.checkpoint_ids().await.unwrap(), [older, newer]);
    assert_eq!(
        blobs.checkpoint_parts(newer).await.unwrap(),
        ["chains.safetensors", "model.safetensors"]
    );

    blobs
        .delete(&part(newer, "model.safetensors"))
        .await
        .unwrap();
    assert_eq!(
        blobs.checkpoint_parts(newer).await.unwrap(),
        ["chains.safetensors"]
    );
    blobs.delete(&part(older, "manifest.json")).await.unwrap();
    assert_eq!(blobs.checkpoint_ids().await.unwrap(), [newer]);
    assert!(blobs.checkpoint_parts(older).await.unwrap().is_empty());
    assert!(
        !folder
            .path()
            .join("checkpoints")
            .join(older.to_string())
            .exists(),
        "the folder goes with its last part"
    );
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_never_visible_and_swept_away() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let id = CheckpointId::now();
    blobs
        .put(&part(id, "trainer.json"), Bytes::from_static(b"{}"))
        .await
        .unwrap();
    // What the store leaves when the process dies between the bytes and the rename.
    let checkpoint = folder.path().join("checkpoints").join(id.to_string());
    std::fs::write(checkpoint.join("model.safetensors#1"), b"torn").unwrap();

    assert_eq!(blobs.checkpoint_parts(id).await.unwrap(), ["trainer.json"]);
    let model = part(id, "model.safetensors");
    assert!(!blobs.exists(&model).await.unwrap());
    blobs
        .put(&model, Bytes::from_static(b"whole"))
        .await
        .unwrap();
    assert_eq!(blobs.get(&model).await.unwrap(), "whole");

    assert_eq!(blobs.sweep().unwrap(), 1);
    assert_eq!(blobs.sweep().unwrap(), 0);
    assert_eq!(blobs.get(&model).await.unwrap(), "whole");
    assert_eq!(files(&checkpoint), ["model.safetensors", "trainer.json"]);
}

#[tokio::test]
async fn no_name_of_a_part_leads_out_of_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(&folder.path().join("data")).unwrap();
    let id = CheckpointId::now();
    for name in ["../../../escaped", "..", "/etc/passwd", "a/b", "c#1"] {
        let key = part(id, name);
        blobs.put(&key, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(blobs.get(&key).await.unwrap(), "x", "{name}");
        let parts = blobs.checkpoint_parts(id).await.unwrap();
        assert_eq!(parts.len(), 1, "{name} became {parts:?}");
        blobs.delete(&key).await.unwrap();
        assert!(!folder.path().join("escaped").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_of_one_key_side_by_side_leave_one_of_them_whole() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let key = image(b"contended");
    let puts = (0..8u8).map(|n| {
        let (blobs, key) = (blobs.clone(), key.clone());
        tokio::spawn(async move { blobs.put(&key, vec![n; 1 << 16].into()).await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
    let whole = blobs.get(&key).await.unwrap();
    assert_eq!(whole.len(), 1 << 16);
    assert!(whole.iter().all(|byte| *byte == whole[0]));
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_of_the_disk_that_overlap_do_not_fail_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    for _ in 0..20 {
        let probes = (0..8).map(|_| blobs.probe_write());
        for probed in futures::future::join_all(probes).await {
            probed.unwrap();
        }
    }
}

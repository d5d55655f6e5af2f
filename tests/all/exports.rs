//! `kith checkpoint export`: files for other programs, read back by kith or parsed as what they are.

use std::{path::Path, process::Command};

use kith::{checkpoint::Label, types::CheckpointId};
use kith_nn::{Device, Encoder, NamedArray};
use kith_weights::Weights;
use tempfile::TempDir;

use crate::{
    program::told,
    support::{Served, settings, start_and_stop},
};

/// Runs the command on the data folder; the answer, or the complaint.
fn export(folder: &TempDir, format: &str, out: &Path) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kith"))
        .args(["checkpoint", "export", "live", "--format", format, "--out"])
        .arg(out)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

async fn live_arrays(folder: &TempDir) -> Vec<NamedArray> {
    let data = settings(folder, &[]).storage.data_dir;
    let (db, blobs) = kith::app::open_read_only(&data).await.unwrap();
    let id = db.live_checkpoint().await.unwrap().unwrap().id;
    let policy = settings(folder, &[]).policy();
    let checkpoints = kith::checkpoint::Checkpoints::new(blobs, db.clone(), policy);
    let model = checkpoints.load_model(id).await.unwrap();
    db.close().await;
    model.arrays
}

#[tokio::test(flavor = "multi_thread")]
async fn each_format_is_written_with_a_readme_and_what_it_holds_is_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    start_and_stop(&folder).await;
    let out = |name: &str| folder.path().join(name);
    for format in ["torchvision", "onnx", "kith"] {
        export(&folder, format, &out(format)).unwrap();
        let readme = std::fs::read_to_string(out(format).join("README.md")).unwrap();
        for said in ["width 8", "16 values", "32 x 32", "0.485", "random weights"] {
            assert!(readme.contains(said), "{format}: {said}");
        }
    }
    let expected = live_arrays(&folder).await;

    let network = Weights::read(&out("torchvision").join("resnet18.safetensors")).unwrap();
    let read = network.arrays(&network.projection(16));
    let stem = |arrays: &[NamedArray]| arrays.iter().find(|a| a.name == "conv1.weight").cloned();
    assert_eq!(stem(&read), stem(&expected));

    // kith's own file can be imported: its head comes back with it.
    let own = Weights::read(&out("kith").join("model.safetensors")).unwrap();
    let mut read = own.arrays(&own.projection(16));
    read.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(read, expected);
    Encoder::from_arrays(
        &settings(&folder, &[]).encoder_config(),
        &read,
        &Device::cpu(),
    )
    .unwrap();

    let graph = std::fs::read(out("onnx").join("model.onnx")).unwrap();
    let holds = |text: &str| {
        graph
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    for said in [
        "LpNormalization",
        "layer4.1.conv2.weight",
        "kith.preprocessing",
        "centre_square",
    ] {
        assert!(holds(said), "{said}");
    }

    let complaint = export(&folder, "onnx", &out("onnx")).unwrap_err();
    assert!(complaint.contains("--out"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_checkpoint_is_the_one_that_was_begun_last_whatever_the_clock_said() {
    let served = Served::start(&[]).await;
    let checkpoints = &served.app.checkpoints;
    let (_, snapshot) = checkpoints.newest().await.unwrap().unwrap();
    // An id of a clock that stood at the beginning.
    let label = Label {
        id: CheckpointId(uuid::Uuid::from_u128(7)),
        ..Label::new(None)
    };
    checkpoints.begin(&label, 5).await.unwrap();
    checkpoints.write(&label, snapshot, None).await.unwrap();
    let folder = served.stop().await;
    let (data, out) = (folder.path().join("data"), folder.path().join("latest"));
    let (data, path) = (data.to_str().unwrap(), out.to_str().unwrap());
    told(&[
        "checkpoint",
        "export",
        "latest",
        "--format",
        "kith",
        "--out",
        path,
        "--data-dir",
        data,
    ]);
    let readme = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(readme.contains(&label.id.to_string()), "{readme}");
}

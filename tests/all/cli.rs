//! The command line: its output, its files, and how soon it fails.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use kith::{app::App, http};
use tokio::sync::oneshot;

use crate::support::{png, settings};

fn kith(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.args(arguments).output().unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn lists() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lists"))
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_misspelt_column_is_refused_by_name_and_nothing_is_posted() {
    let list = lists().join("csv-misspelt-column.csv");
    let refused = kith(&["ingest", list.to_str().unwrap(), "--server", &nobody()]);
    let text = complaint(&refused);
    assert!(
        text.contains("\"postive\"") && text.contains("anchor, positive, group"),
        "{text}"
    );
}

#[test]
fn a_folder_without_pairs_says_which_files_were_left_out_and_why() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("loose.png"), "").unwrap();
    fs::create_dir(folder.path().join("cup")).unwrap();
    fs::write(folder.path().join("cup/note.txt"), "").unwrap();
    let refused = kith(&["ingest", folder.path().to_str().unwrap()]);
    let text = complaint(&refused);
    for part in [
        "loose.png",
        "belongs to no thing",
        "note.txt",
        "does not end in",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn health_asks_a_dead_server_once_unless_told_otherwise() {
    let refused = kith(&["health", "--server", &nobody()]);
    let text = complaint(&refused);
    assert!(text.contains("is the server running"), "{text}");
    let help = String::from_utf8(kith(&["health", "--help"]).stdout).unwrap();
    assert!(help.contains("`kith health`: 0"), "{help}");
}

#[test]
fn the_error_for_an_invalid_id_shows_a_valid_one() {
    for action in ["promote", "delete"] {
        let text = complaint(&kith(&["checkpoint", action, "zzz"]));
        assert!(
            text.contains("looks like") && text.contains("kith checkpoint list"),
            "{text}"
        );
    }
}

#[test]
fn a_setting_of_the_wrong_kind_has_a_plain_message() {
    let text = complaint(&kith(&["config", "--set", "encoder.side=abc"]));
    for part in [
        "--set encoder.side=abc",
        "encoder.side must be a whole number",
        "\"abc\"",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_embedding_that_fails_names_its_file_and_leaves_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.csv");
    let missing = folder.path().join("missing.png");
    let refused = kith(&[
        "embed",
        missing.to_str().unwrap(),
        "--output",
        table.to_str().unwrap(),
        "--server",
        &nobody(),
        "--retries",
        "0",
    ]);
    let text = complaint(&refused);
    assert!(text.contains("missing.png"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn embed_searches_folders_and_with_keep_going_leaves_out_the_file_that_fails() {
    let data = tempfile::tempdir().unwrap();
    let app = App::start(settings(&data, &[])).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(http::serve(listener, app, async {
        let _ = stopped.await;
    }));
    let work = tokio::task::spawn_blocking(move || embed_a_folder(&server));
    work.await.unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

fn embed_a_folder(server: &str) {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir_all(images.join("deep")).unwrap();
    fs::write(images.join("a.png"), png(1)).unwrap();
    fs::write(images.join("broken.png"), "no image").unwrap();
    fs::write(images.join("deep/b.png"), png(2)).unwrap();
    fs::write(images.join("note.txt"), "").unwrap();
    let table = folder.path().join("table.csv");
    let mut arguments = vec!["embed", images.to_str().unwrap(), "--server", server];
    arguments.extend(["--output", table.to_str().unwrap()]);
    let stopped = complaint(&kith(&arguments));
    assert!(
        stopped.contains("broken.png") && stopped.contains("--keep-going"),
        "{stopped}"
    );
    assert!(!table.exists());
    arguments.push("--keep-going");
    let text = complaint(&kith(&arguments));
    for part in ["note.txt", "broken.png", "1 of 3 images failed"] {
        assert!(text.contains(part), "{text}");
    }
    let table = fs::read_to_string(&table).unwrap();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].contains("a.png") && rows[1].contains("b.png"));
    // All that is beside the table is the images' folder.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

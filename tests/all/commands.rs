//! Subcommands that ask a running server for one job each, and those that need none: what they print, and what an interrupted one leaves.

use std::{
    fs::{self, File},
    process::Command,
    time::{Duration, Instant},
};

use kith::app::App;
use serde_json::{Value, json};

use crate::{
    program::{beside_a_server, images, kith, text, told},
    support::{png, settings},
};

/// What `look` finds in the end.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it never came to be as wished");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_pairs_are_listed_shown_and_deleted() {
    beside_a_server(&[], |server| {
        let folder = images(3);
        let added = server.json(&["image", "add", text(folder.path())]);
        let ids: Vec<&str> = added["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 3);
        assert_eq!(
            server.json(&["image", "list", "--limit", "2"])["data"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            server.json(&["image", "list", "--damaged"])["data"],
            json!([])
        );
        assert_eq!(server.json(&["image", "show", ids[0]])["format"], "png");
        let copy = folder.path().join("copy");
        server.told(&["image", "get", ids[0], "--output", text(&copy)]);
        assert_eq!(fs::read(&copy).unwrap(), png(0));
        fs::write(
            folder.path().join("pairs.csv"),
            "anchor,positive,group\n0.png,1.png,a/b\n",
        )
        .unwrap();
        server.told(&["ingest", text(&folder.path().join("pairs.csv"))]);
        let pairs = server.json(&["pair", "list", "--group", "a/b"]);
        let pair = pairs["data"][0]["id"].as_str().unwrap();
        assert_eq!(server.json(&["pair", "show", pair])["group"], "a/b");
        assert!(server.told(&["pair", "list"]).contains("a/b"));
        assert!(server.told(&["pair", "delete", pair]).contains(pair));
        assert_eq!(server.json(&["pair", "list"])["data"], json!([]));
        assert_eq!(
            server.json(&["image", "delete", ids[2]]),
            json!({"deleted": ids[2]})
        );
        let gone = server.complaint(&["image", "show", ids[2]]);
        assert!(gone.contains("unknown_image"), "{gone}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn training_is_paused_and_resumed_and_aliases_are_set() {
    beside_a_server(&["training.enabled=true"], |server| {
        assert_eq!(server.json(&["training", "pause"])["state"], "paused");
        assert!(server.told(&["training"]).contains("paused"));
        let resumed = server.json(&["training", "resume", "--learning-rate", "0.001"]);
        assert_ne!(resumed["state"], "paused");
        assert!(resumed["set_learning_rate"].is_number(), "{resumed}");
        let back = ["training", "resume", "--learning-rate", "schedule"];
        assert!(server.json(&back)["set_learning_rate"].is_null());
        let rate = ["training", "resume", "--learning-rate", "nan"];
        assert_eq!(kith(&rate).status.code(), Some(2));
        let refused = server.complaint(&["training", "resume", "--learning-rate", "-1"]);
        assert!(refused.contains("learning_rate"), "{refused}");
        let live = server.json(&["training"])["checkpoint"]["live"].clone();
        let live = live.as_str().unwrap();
        server.told(&["alias", "set", "shop", live]);
        let names = server.told(&["alias", "list"]);
        assert!(names.contains("shop") && names.contains(live), "{names}");
        let tried = server.json(&["alias", "try", "shop", live, "--percent", "20", "--shadow"]);
        assert_eq!(tried["canary"]["percent"], 20.0);
        server.told(&["alias", "delete", "shop"]);
        assert!(!server.told(&["alias"]).contains("shop"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn training_is_told_with_its_alarms_their_remedies_and_its_figures() {
    let sets = [
        "training.enabled=true",
        "training.min_pairs=2",
        "training.metrics_every=1",
    ];
    beside_a_server(&sets, |server| {
        assert!(!server.told(&["training"]).contains("alarm"));
        let folder = images(8);
        let file = folder.path().join("pairs.csv");
        let post = |rows: &str| {
            fs::write(&file, format!("anchor,positive,group\n{rows}")).unwrap();
            server.told(&["ingest", text(&file)]);
        };
        post("0.png,1.png,all\n2.png,3.png,all\n");
        let told = until(|| Some(server.told(&["training"])).filter(|told| told.contains("alarm")));
        assert!(told.starts_with("state"), "{told}");
        let alarm = &server.json(&["training"])["alarms"][0];
        for part in ["alarm", "message", "remedy"] {
            let part = alarm[part].as_str().unwrap();
            assert!(told.contains(part), "{told}");
        }
        post("4.png,5.png,\n6.png,7.png,\n");
        let told = until(|| {
            let told = server.told(&["training", "metrics"]);
            (told.lines().count() > 1).then_some(told)
        });
        let row: Vec<&str> = told.lines().nth(1).unwrap().split_whitespace().collect();
        // A field that the server does not know is shown as a dash.
        assert!(row.len() == 4 && !row.contains(&"-"), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_as_lines_until_enough_came() {
    beside_a_server(&[], |server| {
        let server_url = server.0.clone();
        let follower = std::thread::spawn(move || {
            told(&[
                "events",
                "--kinds",
                "checkpoint",
                "--count",
                "1",
                "--after",
                "0-0",
                "--server",
                &server_url,
            ])
        });
        server.told(&["checkpoint", "snapshot"]);
        let line: Value = serde_json::from_str(&follower.join().unwrap()).unwrap();
        assert_eq!(line["event"], "checkpoint");
        assert!(line["data"]["checkpoint"].is_string(), "{line}");
        let refused = server.complaint(&["events", "--kinds", "gossip"]);
        assert!(refused.contains("kinds"), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_table_goes_on_with_the_same_checkpoint() {
    beside_a_server(&[], |server| {
        let folder = images(3);
        let table = folder.path().join("table.jsonl");
        let file = |name: &str| folder.path().join(name);
        fs::rename(file("2.png"), file("hidden")).unwrap();
        fs::write(file("2.png"), "no image").unwrap();
        let named = ["0.png", "1.png", "2.png"].map(file);
        let mut command = vec!["embed", "--batch", "1", "--output", text(&table)];
        command.extend(named.iter().map(|path| text(path)));
        let stopped = server.complaint(&command);
        assert!(
            stopped.contains("2 of 3 images are embedded") && stopped.contains("2.png"),
            "{stopped}"
        );
        assert!(!table.exists());
        let first = server.json(&["training"])["checkpoint"]["live"].clone();
        server.told(&["checkpoint", "snapshot"]);
        let newest = server.json(&["checkpoint"])["data"][0]["id"].clone();
        server.told(&["checkpoint", "promote", newest.as_str().unwrap()]);
        fs::rename(file("hidden"), file("2.png")).unwrap();
        server.told(&command);
        let rows = fs::read_to_string(&table).unwrap();
        let rows: Vec<Value> = rows
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows.len(), 3);
        let model = json!(format!("kith@{}", first.as_str().unwrap()));
        assert!(rows.iter().all(|row| row["model"] == model), "{rows:?}");
        assert!(!file("table.jsonl.kith-progress").exists());
    })
    .await;
}

#[test]
fn doctor_names_what_is_wrong_and_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let checks = |arguments: &[&str]| -> Vec<Value> {
        let output = kith(
            &[
                &[
                    "doctor",
                    "--json",
                    "--data-dir",
                    text(&data),
                    "--set",
                    "server.listen=127.0.0.1:0",
                ],
                arguments,
            ]
            .concat(),
        );
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = document["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["state"] == "problem");
        assert_eq!(output.status.success(), !problems);
        document["checks"].as_array().unwrap().clone()
    };
    let state = |checks: &[Value], name: &str| {
        checks.iter().find(|check| check["name"] == name).unwrap()["state"].clone()
    };
    let fresh = checks(&[]);
    for name in ["device", "folder", "data", "address"] {
        assert_eq!(state(&fresh, name), "good", "{fresh:?}");
    }
    let wrong = checks(&[
        "--set",
        "encoder.device=cuda:0",
        "--set",
        "server.max_connections=65536",
        "--set",
        "server.listen=0.0.0.0:0",
    ]);
    for name in ["device", "address"] {
        let check = wrong.iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["state"], "problem", "{check}");
        assert!(!check["remedy"].as_str().unwrap().is_empty());
    }
    fs::write(&data, "no folder").unwrap();
    assert_eq!(state(&checks(&[]), "folder"), "problem");
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("kith.db"), "no database").unwrap();
    assert_eq!(state(&checks(&[]), "data"), "problem");
    assert_eq!(
        fs::read_dir(&data).unwrap().count(),
        1,
        "doctor leaves nothing behind"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_checks_the_folder_of_a_server_against_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let started = settings(&folder, &[]);
    let (data, width) = (started.storage.data_dir.clone(), started.encoder.width);
    App::start(started).await.unwrap().stop().await.unwrap();
    let same = settings(&folder, &[]);
    let checks = kith::doctor::examine(&same).await;
    let check = |name: &str, checks: &[kith::doctor::Check]| {
        checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        check("checkpoint", &checks).state,
        kith::doctor::State::Good,
        "{checks:?}"
    );
    assert_eq!(check("database", &checks).state, kith::doctor::State::Good);
    assert!(data.is_dir());
    let other = settings(&folder, &[&format!("encoder.width={}", width * 2)]);
    let checks = kith::doctor::examine(&other).await;
    let check = check("checkpoint", &checks);
    assert_eq!(check.state, kith::doctor::State::Problem);
    assert!(check.remedy.unwrap().contains("encoder.width"));
}

#[test]
fn completions_and_man_pages_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let script = told(&["completions", shell]);
        assert!(
            script.contains("ingest") && script.contains("keep-going"),
            "{shell}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    told(&["man", text(&pages)]);
    for page in ["kith.1", "kith-embed.1", "kith-checkpoint-promote.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_sentence_and_one_that_nobody_reads_is_no_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut config = Command::new(env!("CARGO_BIN_EXE_kith"));
    let output = config.arg("config").stdout(full).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("kith: standard output cannot be written"),
        "{text}"
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut config = Command::new(env!("CARGO_BIN_EXE_kith"));
    let output = config.arg("config").stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

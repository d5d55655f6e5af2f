//! `kith search` and `kith reembed` beside a server.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    thread::spawn,
};

use serde_json::{Value, json};

use crate::{
    program::{beside, beside_a_server, images, kith, text},
    support::Served,
};

const SEARCHED: [&str; 1] = ["search.enabled=true"];

/// Documents, one a line.
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ids(answer: &Value) -> Vec<&str> {
    let found = answer["data"].as_array().unwrap().iter();
    found.map(|image| image["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_ids_and_vectors_find_the_same_images() {
    beside_a_server(&SEARCHED, |server| {
        let folder = images(5);
        let file = |name: &str| folder.path().join(name);
        let list = "anchor,positive,group\n0.png,1.png,a\n2.png,3.png,b\n";
        fs::write(file("pairs.csv"), list).unwrap();
        server.told(&["ingest", text(&file("pairs.csv"))]);
        server.told(&["image", "add", text(&file("4.png"))]);
        server.told(&["reembed", "--wait", "--patience", "60"]);
        let (zero, one) = (file("0.png"), file("1.png"));
        let answers = lines(&server.told(&["search", text(&zero), text(&one), "--json"]));
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0]["query"], text(&zero));
        assert_eq!(answers[0]["indexed_share"], 1.0);
        let found = ids(&answers[0]);
        assert_eq!(found.len(), 5);
        assert!(answers[0]["data"][0]["score"].as_f64().unwrap() > 0.999);
        let stored = lines(&server.told(&["search", "--id", found[0], "--json"]));
        assert_eq!(ids(&stored[0]), found[1..]);
        let vector = server.told(&["embed", text(&zero)]);
        fs::write(file("vector.jsonl"), vector).unwrap();
        let vector = file("vector.jsonl");
        let by_file = ["search", "--vector", text(&vector), "--json"];
        assert_eq!(ids(&lines(&server.told(&by_file))[0]), found);
        let mut piped = Command::new(env!("CARGO_BIN_EXE_kith"));
        piped.args(["search", "--vector", "-", "--json", "--server", &server.0]);
        piped.stdin(File::open(file("vector.jsonl")).unwrap());
        let piped = String::from_utf8(piped.output().unwrap().stdout).unwrap();
        assert_eq!(ids(&lines(&piped)[0]), found);
        let grouped = ["search", text(&zero), "--group", "b", "--k", "1", "--json"];
        let grouped = lines(&server.told(&grouped));
        assert_eq!(ids(&grouped[0]).len(), 1);
        assert_eq!(grouped[0]["data"][0]["group"], "b");
        let table = server.told(&["search", text(&zero), "--k", "2"]);
        assert!(table.starts_with(&format!("{}:\nrank  id ", text(&zero))));
        assert!(
            table.contains("under which 100% of the stored images"),
            "{table}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_for_is_named_with_the_reason() {
    beside_a_server(&SEARCHED, |server| {
        let folder = images(1);
        let file = |name: &str| folder.path().join(name);
        fs::write(file("short.json"), "[1.0, 2.0]").unwrap();
        let short = server.complaint(&["search", "--vector", text(&file("short.json"))]);
        assert!(
            short.contains("short.json") && short.contains("2 values"),
            "{short}"
        );
        let unknown = "0".repeat(64);
        let unknown = server.complaint(&["search", "--id", &unknown]);
        assert!(unknown.contains("unknown_image"), "{unknown}");
        fs::write(file("broken.png"), "no image").unwrap();
        let broken = server.complaint(&["search", text(&file("broken.png"))]);
        assert!(broken.contains("broken.png"), "{broken}");
        let image = file("0.png");
        for wrong in [
            &["search"][..],
            &["search", text(&image), "--id", "a"],
            &["search", text(&image), "--k", "0"],
            &["search", text(&image), "--k", "1001"],
            &["search", text(&image), "--checkpoint", "latest"],
        ] {
            assert_eq!(kith(wrong).status.code(), Some(2), "{wrong:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_images_are_embedded_under_a_checkpoint_that_is_asked_for_and_after_a_promotion() {
    let served = Served::start(&SEARCHED).await;
    let live = served.app.db.live_checkpoint().await.unwrap().unwrap().id;
    let other = served.write_checkpoint(7).await.to_string();
    let next = served.write_checkpoint(8).await.to_string();
    beside(served.app.clone(), move |server| {
        let folder = images(4);
        server.told(&["image", "add", text(folder.path())]);
        server.told(&["reembed", "--wait"]);
        let wanted = ["reembed", "--checkpoint", &other, "--wait"];
        let state = server.json(&wanted);
        assert_eq!(state["stored_images"], 4);
        let row = |state: &Value, id: &str| {
            let rows = state["data"].as_array().unwrap();
            let row = rows.iter().find(|row| row["checkpoint"] == id);
            row.cloned().unwrap_or_default()
        };
        assert_eq!(row(&state, &live.to_string())["role"], "answering");
        assert_eq!(row(&state, &other)["role"], "kept");
        assert_eq!(row(&state, &other)["images"], 4);
        server.told(&["checkpoint", "promote", &next]);
        let state = server.json(&["reembed", "--wait"]);
        assert_eq!(row(&state, &next)["images"], 4);
        let table = server.told(&["reembed"]);
        assert!(table.contains(&next) && table.contains("1.0000"), "{table}");
        let zero = folder.path().join("0.png");
        let searched = ["search", text(&zero), "--checkpoint", &other, "--json"];
        let answer = lines(&server.told(&searched)).remove(0);
        assert_eq!(answer["model"], format!("kith@{other}"));
        let unknown = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";
        let refused = server.complaint(&["reembed", "--checkpoint", unknown]);
        assert!(refused.contains("unknown_checkpoint"), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_search_says_which_setting_to_change() {
    beside_a_server(&[], |server| {
        let refused = server.complaint(&["reembed", "--wait"]);
        assert!(refused.contains("search.enabled = true"), "{refused}");
    })
    .await;
}

#[test]
fn waiting_ends_with_a_remedy_when_nothing_moves() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let live = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let model = String::from_utf8_lossy(&head[..length]).contains("/v1/models");
            let row =
                json!({"checkpoint": live, "role": "answering", "images": 4, "indexed_share": 0.4});
            let body = if model {
                json!({"checkpoint": live})
            } else {
                json!({"enabled": true, "stored_images": 10, "data": [row]})
            };
            let body = body.to_string();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    let waiting = ["reembed", "--wait", "--patience", "1", "--server", &server];
    let output = kith(&waiting);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["6 images are not embedded", "--damaged", "--patience"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(kith(&["reembed", "--patience", "1"]).status.code(), Some(2));
}

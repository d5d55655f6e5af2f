//! `kith search` and `kith reembed` beside a server.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{Receiver, channel},
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

const LIVE: &str = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";

/// A server that answers each request by `answer`, and the requests as it gets them.
fn scripted(mut answer: impl FnMut(&str) -> Value + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = request(&mut stream);
            let body = answer(&request).to_string();
            let _ = tell.send(request);
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\nconnection: close";
            write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    (server, told)
}

/// The head and body of a request.
fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).unwrap();
        text += &String::from_utf8_lossy(&part[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let bytes = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let bytes: usize = bytes.map_or(0, |bytes| bytes.parse().unwrap());
        if body.len() >= bytes {
            return text;
        }
    }
}

/// What `kith reembed` asks, of a server whose checkpoint has vectors of so many of ten images; the last number stays.
fn embedding(counts: &[u64]) -> impl FnMut(&str) -> Value + Send + 'static {
    let mut counts: VecDeque<u64> = counts.iter().copied().collect();
    // The first question is whether the server searches at all.
    counts.push_front(0);
    move |request: &str| {
        if request.contains("/v1/models") {
            return json!({"checkpoint": LIVE});
        }
        let last = counts.len() == 1;
        let images = if last {
            counts.front().copied()
        } else {
            counts.pop_front()
        };
        let row = json!({"checkpoint": LIVE, "role": "answering", "images": images, "indexed_share": 0.4});
        json!({"enabled": true, "stored_images": 10, "data": [row]})
    }
}

#[test]
fn waiting_ends_with_a_remedy_when_nothing_moves() {
    let (server, _told) = scripted(embedding(&[4]));
    let waiting = ["reembed", "--wait", "--patience", "1", "--server", &server];
    let output = kith(&waiting);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["6 images are not embedded", "--damaged", "--patience"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(kith(&["reembed", "--patience", "1"]).status.code(), Some(2));
}

#[test]
fn waiting_outlasts_its_patience_while_images_are_embedded() {
    // Each answer comes half a second after the one before: three seconds in all, and never one without another image.
    let (server, _told) = scripted(embedding(&[4, 5, 6, 7, 8, 9, 10]));
    let waiting = ["reembed", "--wait", "--patience", "1", "--server", &server];
    let output = kith(&waiting);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
}

#[test]
fn the_checkpoint_that_answers_the_first_query_answers_the_others() {
    let answer = |model: &str| json!({"data": [], "model": model, "indexed_share": 1.0});
    let first = format!("kith@{LIVE}");
    let other = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5b";
    let (server, told) = scripted(move |_| answer(&first));
    let asked = |arguments: &[&str]| -> Vec<Value> {
        let output = kith(&[&["search", "--server", &server], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let bodies = told.try_iter().map(|request| {
            let body = request.split_once("\r\n\r\n").unwrap().1;
            serde_json::from_str::<Value>(body).unwrap()["checkpoint"].clone()
        });
        bodies.collect()
    };
    let ids = ["0", "1", "2"].map(|digit| digit.repeat(64));
    let ids: Vec<&str> = ids.iter().flat_map(|id| ["--id", id]).collect();
    // Another may be promoted after the first answer.
    assert_eq!(asked(&ids), [Value::Null, json!(LIVE), json!(LIVE)]);
    let named = [&ids[..], &["--checkpoint", other]].concat();
    assert_eq!(asked(&named), [json!(other), json!(other), json!(other)]);
    // A vector is searched under the checkpoint that made it, which says nothing of the others.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors.jsonl");
    let made = json!({"model": format!("kith@{other}"), "embedding": [1.0]});
    fs::write(&file, format!("{made}\n[1.0]\n[2.0]\n{made}\n")).unwrap();
    assert_eq!(
        asked(&["--vector", text(&file)]),
        [json!(other), Value::Null, json!(LIVE), json!(other)]
    );
}

//! What clients send: bodies through all layers of a server, and the lists of the command line.

use std::{fs, sync::OnceLock};

use axum::http::StatusCode;
use kith::cli::PairList;
use serde_json::Value;
use tempfile::TempDir;

use super::server::Server;

/// The boundary of the forms in the corpus.
const FORM: &str = "multipart/form-data; boundary=edge";
/// Most pairs of one sub-folder; a list has none.
const PER_THING: usize = 10;

/// A JSON body of both routes of embeddings: vectors, or an error in the documented shape.
pub fn embeddings_json(body: &[u8]) -> bool {
    let routes = ["/v1/embeddings", "/v2/embed"];
    routes.map(|path| is_success(path, "application/json", body)) != [false, false]
}

/// A form with image files, and one with a pair.
pub fn multipart(body: &[u8]) -> bool {
    let routes = ["/v1/embeddings", "/v1/pairs"];
    routes.map(|path| is_success(path, FORM, body)) != [false, false]
}

/// A stream of pairs: the answer has no more lines than the body, and none is about a failure of the server.
pub fn pairs_ndjson(body: &[u8]) -> bool {
    let (status, answer) = Server::shared().post("/v1/pairs", "application/x-ndjson", body);
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<&[u8]> = answer.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(lines.len() <= body.split(|byte| *byte == b'\n').count());
    let is_pair = |line: &&[u8]| {
        let line: Value = serde_json::from_slice(line).expect("each line is JSON");
        assert_ne!(line["error"]["type"], "server_error", "{line}");
        assert!(
            line["id"].is_string() || line["error"].is_object(),
            "{line}"
        );
        line["id"].is_string()
    };
    lines.iter().filter(|line| is_pair(line)).count() > 0
}

/// A list of pairs: refused, or each of its lines is a pair or a problem.
pub fn pairs_csv(bytes: &[u8]) -> bool {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("there is a temporary folder"));
    let path = folder.path().join("pairs.csv");
    fs::write(&path, bytes).expect("the temporary folder takes files");
    let Ok(list) = PairList::read(&path, PER_THING) else {
        return false;
    };
    let found = list.pairs.len() + list.problems.len();
    assert!((1..=bytes.len()).contains(&found));
    assert!(list.left_out.is_empty());
    true
}

/// Whether the server answers with success, in JSON; another answer is an error that says why.
fn is_success(path: &str, media: &str, body: &[u8]) -> bool {
    let (status, answer) = Server::shared().post(path, media, body);
    let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
    let error = &answer["error"]["message"];
    let explained = error.as_str().is_some_and(|message| !message.is_empty());
    assert_ne!(status.is_success(), explained, "{path}: {answer}");
    status.is_success()
}

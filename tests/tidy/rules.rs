//! The rules as functions from text to findings. Knows no file system.

use super::source::{bracketed, inline_depth, is_word, line, segments, starts};

/// Rooms from the ground up: a room may name only rooms of lower floors, and those that [`SAME_FLOOR`] lists.
const FLOORS: &[&[&str]] = &[
    &["types", "telemetry", "disk"],
    &["blobs", "db"],
    &["image_store"],
    &["checkpoint", "ingest"],
    &["serve", "train", "bench", "audit"],
    &["app", "config"],
    &["http"],
    &["cli"],
    &["main"],
];

/// Neighbours that may know each other: who, whom.
const SAME_FLOOR: &[(&str, &str)] = &[("app", "config")];

/// Dependencies with one home each.
const HOMES: &[(&str, &str)] = &[
    ("sqlx", "db"),
    ("object_store", "blobs"),
    ("axum", "http"),
    ("hyper", "http"),
    ("hyper_util", "http"),
    ("tower", "http"),
    ("tower_http", "http"),
    ("arc_swap", "serve"),
    ("tracing_subscriber", "telemetry"),
    ("clap", "cli"),
    ("indicatif", "cli"),
    ("ureq", "cli"),
];

const MOST_LINES: usize = 400;

pub(crate) fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Rooms that `code` of `room` names and must not. `depth` as [`SourceFile::depth`] has it.
pub(crate) fn wrong_floors(room: &str, depth: usize, code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for prefix in ["crate::", "kith::"] {
        let found = starts(code, prefix).flat_map(|at| {
            segments(&code[at + prefix.len()..])
                .into_iter()
                .map(move |name| (at, name))
        });
        named.extend(found);
    }
    for at in starts(code, "super::").filter(|&at| !code[..at].ends_with("super::")) {
        let rest = code[at..].trim_start_matches("super::");
        let climbed = (code.len() - at - rest.len()) / "super::".len();
        if climbed >= depth + inline_depth(code, at) {
            named.extend(segments(rest).into_iter().map(|name| (at, name)));
        }
    }
    let allowed = |name: &str| {
        name == room
            || room == "lib"
            || floor(name) < floor(room)
            || SAME_FLOOR.contains(&(room, name))
    };
    let known = named.into_iter().filter(|(_, name)| floor(name).is_some());
    known
        .filter(|(_, name)| !allowed(name))
        .map(|(at, name)| format!("line {}: {room} must not know {name}", line(code, at)))
        .collect()
}

/// Confined dependencies that `code` of `room` uses away from home.
pub(crate) fn strays(room: &str, code: &str) -> Vec<String> {
    let away = HOMES.iter().filter(|(_, home)| *home != room);
    let away = away.filter(|(name, _)| !code.contains(&format!("mod {name};")));
    away.flat_map(|(name, home)| {
        let used = starts(code, name).filter(move |&at| {
            let after = &code[at + name.len()..];
            let imported = code[..at].ends_with("use ") && !after.starts_with(is_word);
            !code[..at].ends_with("::") && (after.starts_with("::") || imported)
        });
        used.map(move |at| format!("line {}: {name} lives in {home}", line(code, at)))
    })
    .collect()
}

pub(crate) fn without_head(text: &str) -> Vec<String> {
    let heads = ["//! ", "#![doc = include_str!("];
    match heads.iter().any(|head| text.starts_with(head)) {
        true => Vec::new(),
        false => vec!["does not open with //!".into()],
    }
}

pub(crate) fn too_long(text: &str) -> Vec<String> {
    match text.lines().count() {
        lines if lines > MOST_LINES => vec![format!("{lines} lines, {MOST_LINES} is the most")],
        _ => Vec::new(),
    }
}

pub(crate) fn calls(code: &str, needle: &str) -> Vec<String> {
    let found = code.match_indices(needle);
    found
        .map(|(at, _)| format!("line {}: {needle}", line(code, at)))
        .collect()
}

pub(crate) fn prints(code: &str) -> Vec<String> {
    let found = ["println!", "print!", "dbg!"]
        .iter()
        .flat_map(|name| starts(code, name));
    found
        .map(|at| format!("line {}: prints", line(code, at)))
        .collect()
}

pub(crate) fn features(code: &str) -> Vec<String> {
    let conditions = ["cfg(", "cfg!(", "cfg_attr("]
        .iter()
        .flat_map(|name| starts(code, name));
    conditions
        .filter(|&at| starts(bracketed(&code[at..]), "feature ").next().is_some())
        .map(|at| format!("line {}: asks for a build feature", line(code, at)))
        .collect()
}

/// Dependencies of the workspace, its own crates apart, that have no line "- `name`" in `reasons`.
pub(crate) fn without_reason(manifest: &str, reasons: &str) -> Vec<String> {
    let mut inside = false;
    let mut findings = Vec::new();
    for text in manifest.lines() {
        if text.starts_with('[') {
            inside = text == "[workspace.dependencies]";
        } else if let (true, Some((name, _))) = (inside, text.split_once(" = "))
            && !name.starts_with("kith-")
        {
            let reasoned = reasons.contains(&format!("\n- `{name}`"));
            findings.extend((!reasoned).then(|| format!("{name} has no reason")));
        }
    }
    findings
}

#[test]
fn a_look_upstairs_is_found_however_it_is_written() {
    for code in [
        "use crate::http;",
        "use crate::{db, serve::{Serving}, types};",
        "use crate::{\n    db::{Db, Row},\n    http::Router,\n};",
        "fn f() { crate::app::App::start() }",
        "fn f() { kith::cli::run() }",
        "use super::super::train::Trainer;",
        "mod tests { use super::super::super::{db, config::Settings}; }",
    ] {
        assert_eq!(wrong_floors("ingest", 2, code).len(), 1, "{code}");
    }
    let neighbours = wrong_floors("serve", 1, "use crate::train::Trainer;");
    assert_eq!(neighbours, ["line 1: serve must not know train"]);
}

#[test]
fn a_look_downstairs_or_at_home_is_no_finding() {
    for code in [
        "use crate::{blobs, db::{self, http}, types::Sha256};",
        "use super::serve;",
        "mod tests { use super::super::http; }",
        "use other_crate::http;",
    ] {
        assert_eq!(wrong_floors("ingest", 2, code), [""; 0], "{code}");
    }
    assert_eq!(
        wrong_floors("app", 1, "use crate::config::Settings;"),
        [""; 0]
    );
}

#[test]
fn a_dependency_away_from_home_is_found() {
    for code in [
        "use axum::Router;",
        "use axum as web;",
        "fn f() { object_store::open(x) }",
        "fn f() { sqlx::query(x) }",
    ] {
        assert_eq!(strays("ingest", code).len(), 1, "{code}");
    }
    assert_eq!(
        strays("http", "use sqlx::Row;"),
        ["line 1: sqlx lives in db"]
    );
}

#[test]
fn a_dependency_at_home_and_a_namesake_are_no_finding() {
    assert_eq!(strays("http", "use axum::Router;"), [""; 0]);
    assert_eq!(
        strays("ingest", "let clap = bytes; self.clap = clap;"),
        [""; 0]
    );
    assert_eq!(
        strays("http", "mod config;\npub use clap::Parser;").len(),
        1
    );
    assert_eq!(strays("http", "mod clap;\npub use clap::Parser;"), [""; 0]);
    assert_eq!(strays("http", "use crate::pixels::clap::Size;"), [""; 0]);
}

#[test]
fn a_file_without_its_head_is_found() {
    assert_eq!(without_head("use std::fs;\n//! Late.").len(), 1);
    assert_eq!(without_head("//! Head."), [""; 0]);
}

#[test]
fn one_line_too_many_is_found() {
    assert_eq!(too_long(&"\n".repeat(MOST_LINES)), [""; 0]);
    assert_eq!(too_long(&"\n".repeat(MOST_LINES + 1)).len(), 1);
}

#[test]
fn an_unwrap_and_a_print_are_found_with_their_line() {
    assert_eq!(calls("a;\nb.unwrap();", ".unwrap()"), ["line 2: .unwrap()"]);
    assert_eq!(calls("b.unwrap_or(1)", ".unwrap()"), [""; 0]);
    assert_eq!(prints("\nprintln!()"), ["line 2: prints"]);
    assert_eq!(prints("eprintln!(); sprint!()"), [""; 0]);
}

#[test]
fn a_build_feature_is_found_and_a_target_is_not() {
    for code in [
        "#[cfg(feature = )]",
        "cfg!(all(unix, feature = ))",
        "#[cfg_attr(not(feature = ), x)]",
    ] {
        assert_eq!(features(code).len(), 1, "{code}");
    }
    assert_eq!(
        features("#[cfg(target_feature = )] #[cfg(test)] let feature = 1;"),
        [""; 0]
    );
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let manifest =
        "[package]\nname = 1\n[workspace.dependencies]\na = 1\nb = 1\nkith-c = 1\n[lints]\nd = 1";
    let findings = without_reason(manifest, "# Head\n- `a`: needed\n");
    assert_eq!(findings, ["b has no reason"]);
}

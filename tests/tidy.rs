//! The house rules that a compiler does not hold: floors, confinement of dependencies, the shape of files.
//! Reads the source as text and knows no room's inside; the rules themselves are tried on small strings in `tidy/rules.rs`.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rules::{
    calls, features, floor, prints, strays, too_long, without_head, without_reason, wrong_floors,
};
use source::{code, untested};

#[test]
fn rooms_import_only_from_lower_floors() {
    refuse(each_file("src", |file| {
        wrong_floors(file.room(), file.depth(), &code(&file.text))
    }));
}

#[test]
fn a_confined_dependency_stays_in_its_room() {
    refuse(each_file("src", |file| {
        strays(file.room(), &code(&file.text))
    }));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    refuse(each_source(|file| without_head(&file.text)));
}

#[test]
fn no_file_outgrows_its_noun() {
    refuse(each_source(|file| too_long(&file.text)));
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let tests = |path: &Path| path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
    refuse(each_source(|file| match tests(&file.path) {
        true => Vec::new(),
        false => calls(&untested(&code(&file.text)), ".unwrap()"),
    }));
}

#[test]
fn only_the_command_line_prints() {
    let command_line = |path: &Path| {
        path.starts_with("src/cli") || path == Path::new("crates/kith-study/src/main.rs")
    };
    refuse(each_source(|file| match command_line(&file.path) {
        true => Vec::new(),
        false => prints(&untested(&code(&file.text))),
    }));
}

#[test]
fn only_the_encoder_knows_build_features() {
    refuse(each_source(|file| {
        match file.path.starts_with("crates/kith-nn/src") {
            true => Vec::new(),
            false => features(&code(&file.text)),
        }
    }));
}

#[test]
fn every_room_has_a_floor() {
    refuse(each_file("src", |file| match file.room() {
        "lib" => Vec::new(),
        room if floor(room).is_some() => Vec::new(),
        room => vec![format!("room {room} is on no floor")],
    }));
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = read(&root().join("docs/dependencies.md"));
    refuse(without_reason(&read(&root().join("Cargo.toml")), &reasons));
}

/// What `cargo build` reads: sources, files embedded in them, and the benches that the manifest names, without which it refuses to start.
#[test]
fn the_container_is_built_from_all_that_cargo_reads() {
    let (dockerfile, ignored) = (
        read(&root().join("Dockerfile")),
        read(&root().join(".dockerignore")),
    );
    for folder in ["benches", "config", "crates", "migrations", "src"] {
        assert!(
            dockerfile.contains(&format!("\nCOPY {folder} {folder}\n")),
            "the Dockerfile does not copy {folder}"
        );
        assert!(
            ignored.lines().any(|line| line == format!("!{folder}")),
            ".dockerignore leaves {folder} out"
        );
    }
}

/// One file of the project.
struct SourceFile {
    /// Below the project's root.
    path: PathBuf,
    text: String,
}

impl SourceFile {
    /// `src/db/rows.rs` and `src/db.rs` are both in room `db`.
    fn room(&self) -> &str {
        let mut parts = self.path.iter().skip(1).filter_map(|part| part.to_str());
        let name = parts.next().expect("a file below src has a name");
        name.strip_suffix(".rs").unwrap_or(name)
    }

    /// Modules between the file and the crate's root: 1 for `src/db/mod.rs`, 2 for `src/db/rows.rs`.
    fn depth(&self) -> usize {
        self.path.iter().count() - 1 - usize::from(self.path.ends_with("mod.rs"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn each_source(rule: impl Fn(&SourceFile) -> Vec<String>) -> Vec<String> {
    let mut findings = each_file("src", &rule);
    for member in fs::read_dir(root().join("crates")).expect("the workspace has members") {
        let member = member.expect("a listed entry can be read").path();
        let source = member.join("src");
        let below = source.strip_prefix(root()).expect("it was found below");
        findings.extend(each_file(&below.display().to_string(), &rule));
    }
    findings
}

fn each_file(folder: &str, rule: impl Fn(&SourceFile) -> Vec<String>) -> Vec<String> {
    let mut open = vec![root().join(folder)];
    let mut findings = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("the project's folders can be listed") {
            let path = entry.expect("a listed entry can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read(&path);
                let path = path
                    .strip_prefix(root())
                    .expect("it was found below")
                    .into();
                let file = SourceFile { path, text };
                let found = rule(&file).into_iter();
                findings.extend(found.map(|what| format!("{}: {what}", file.path.display())));
            }
        }
    }
    findings
}

fn refuse(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

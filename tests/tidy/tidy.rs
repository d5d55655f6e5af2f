//! Rules about the source that the compiler cannot hold: circles and layers among modules, homes of dependencies, the shape of files.

mod modules;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

use modules::Crate;

#[test]
fn modules_do_not_use_each_other_in_circles() {
    refuse(
        crates()
            .iter()
            .flat_map(|folder| {
                let circles = Crate::read(&folder.join("src")).circles().into_iter();
                circles.map(|circle| format!("{}: {circle}", folder.display()))
            })
            .collect(),
    );
}

#[test]
fn modules_of_the_server_use_lower_layers_only() {
    let uses = Crate::read(&root().join("src")).uses();
    let above = uses
        .iter()
        .filter_map(|(from, to)| rules::wrong_layer(from.first()?, to.first()?));
    refuse(above.collect());
}

#[test]
fn every_module_of_the_server_has_a_layer() {
    let text = read(&root().join("src/lib.rs"));
    let names = text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let missing = names
        .map(|name| name.trim_end_matches(';'))
        .filter(|name| rules::layer(name).is_none());
    refuse(missing.map(String::from).collect());
}

#[test]
fn a_dependency_stays_in_its_module() {
    refuse(each_source(&root().join("src"), |path, text| {
        rules::strays(&top_module(path), text)
    }));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    refuse(each_file(|_, text| rules::without_head(text)));
}

#[test]
fn no_file_outgrows_its_noun() {
    refuse(each_file(|_, text| rules::too_long(text)));
}

#[test]
fn only_the_encoder_and_its_first_weights_are_compiled_by_features() {
    refuse(each_crate(|path, text| {
        // kith-weights only chooses whether a file is part of the program.
        if path.starts_with("crates/kith-nn/src") || path.ends_with("kith-weights/src/starter.rs") {
            Vec::new()
        } else {
            rules::features(text)
        }
    }));
}

#[test]
fn only_the_encoder_may_hold_unsafe_code() {
    let roots = crates().into_iter().map(|folder| folder.join("src/lib.rs"));
    let open = roots.filter(|file| !read(file).contains("\n#![forbid(unsafe_code)]\n"));
    let open: Vec<_> = open.map(|file| below_root(&file)).collect();
    assert_eq!(open, [Path::new("crates/kith-nn/src/lib.rs")]);
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = read(&root().join("docs/dependencies.md"));
    refuse(rules::without_reason(
        &read(&root().join("Cargo.toml")),
        &reasons,
    ));
}

/// The project's folder.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("this package is two folders deep")
}

fn below_root(path: &Path) -> PathBuf {
    let below = path.strip_prefix(root());
    below.expect("it was found below the root").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the project's folders can be listed");
    let paths = entries.map(|entry| entry.expect("a listed entry can be read").path());
    paths.collect()
}

/// Folders of the packages that have a library.
fn crates() -> Vec<PathBuf> {
    [vec![root().to_owned()], listed(&root().join("crates"))].concat()
}

/// The top module that a file of the server belongs to.
fn top_module(path: &Path) -> String {
    let name = path.iter().nth(1).and_then(|name| name.to_str());
    let name = name.expect("a file below src has a name");
    name.trim_end_matches(".rs").to_owned()
}

fn each_crate(rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    each_below(&["src"], rule)
}

/// As `each_crate`, with tests and benchmarks.
fn each_file(rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    each_below(&["src", "tests", "benches"], rule)
}

fn each_below(names: &[&str], rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let folders = crates().into_iter().flat_map(|package| {
        let folders = names.iter().map(move |name| package.join(name));
        folders.filter(|folder| folder.is_dir())
    });
    folders
        .flat_map(|folder| each_source(&folder, &rule))
        .collect()
}

fn each_source(folder: &Path, rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let mut open = vec![folder.to_owned()];
    let mut findings = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(listed(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let shown = below_root(&path);
            let found = rule(&shown, &read(&path)).into_iter();
            findings.extend(found.map(|what| format!("{}: {what}", shown.display())));
        }
    }
    findings
}

fn refuse(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

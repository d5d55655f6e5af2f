//! The rules as functions from names and text to findings, and the tests that try them on small examples.

use syn::visit::Visit;

use super::modules::Crate;

/// The server's modules from the ground up: a module may use those of lower layers only, and its own.
const LAYERS: &[&[&str]] = &[
    &["types", "telemetry", "disk", "events", "foreground"],
    &["blobs", "db"],
    &["image_store"],
    &["checkpoint", "ingest", "keys", "thumbnails"],
    &["serve", "train", "bench", "audit"],
    &["search"],
    &["history"],
    &["config"],
    &["app"],
    &["doctor", "http"],
    &["cli"],
];

/// Dependencies that one module of the server uses and no other; `ureq` has two.
const HOMES: &[(&str, &str)] = &[
    ("sqlx", "db"),
    ("object_store", "blobs"),
    ("axum", "http"),
    ("hyper", "http"),
    ("hyper_util", "http"),
    ("tower", "http"),
    ("tower_http", "http"),
    ("tokio_util", "http"),
    ("utoipa_axum", "http"),
    ("form_urlencoded", "http"),
    ("serde_urlencoded", "http"),
    ("governor", "keys"),
    ("subtle", "keys"),
    ("getrandom", "keys"),
    ("arc_swap", "serve"),
    ("thread_priority", "train"),
    ("metrics", "telemetry"),
    ("opentelemetry", "telemetry"),
    ("opentelemetry_http", "telemetry"),
    ("opentelemetry_otlp", "telemetry"),
    ("opentelemetry_sdk", "telemetry"),
    ("tracing_opentelemetry", "telemetry"),
    ("metrics_exporter_prometheus", "telemetry"),
    ("tracing_subscriber", "telemetry"),
    ("sysinfo", "doctor"),
    ("clap", "cli"),
    ("clap_complete", "cli"),
    ("clap_mangen", "cli"),
    ("parquet", "cli"),
    ("percent_encoding", "cli"),
    ("indicatif", "cli"),
    ("ureq", "cli, telemetry"),
];

const MAX_LINES: usize = 400;

pub(crate) fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// A finding if a top module uses another that is not below it.
pub(crate) fn wrong_layer(from: &str, to: &str) -> Option<String> {
    let allowed = from == to || layer(to) < layer(from);
    (!allowed).then(|| format!("{from} must not use {to}"))
}

/// Dependencies that the source of `module` uses away from their home.
pub(crate) fn strays(module: &str, text: &str) -> Vec<String> {
    struct Roots(Vec<String>);
    impl<'a> Visit<'a> for Roots {
        fn visit_path(&mut self, path: &'a syn::Path) {
            if path.segments.len() > 1 {
                self.0.push(path.segments[0].ident.to_string());
            }
            syn::visit::visit_path(self, path);
        }

        fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
            self.root(&import.tree);
        }
    }
    impl Roots {
        fn root(&mut self, tree: &syn::UseTree) {
            match tree {
                syn::UseTree::Path(path) => self.0.push(path.ident.to_string()),
                syn::UseTree::Name(name) => self.0.push(name.ident.to_string()),
                syn::UseTree::Rename(new) => self.0.push(new.ident.to_string()),
                syn::UseTree::Group(group) => group.items.iter().for_each(|one| self.root(one)),
                syn::UseTree::Glob(_) => {}
            }
        }
    }
    let mut roots = Roots(Vec::new());
    roots.visit_file(&syn::parse_file(text).expect("the source compiles"));
    let away = HOMES
        .iter()
        .filter(|(_, home)| !home.split(", ").any(|one| one == module));
    away.filter(|(name, _)| roots.0.iter().any(|root| root == name))
        .map(|(name, home)| format!("{name} is used in {home} only"))
        .collect()
}

pub(crate) fn without_head(text: &str) -> Vec<String> {
    let heads = ["//! ", "#![doc = include_str!("];
    if heads.iter().any(|head| text.starts_with(head)) {
        Vec::new()
    } else {
        vec!["does not open with //!".into()]
    }
}

pub(crate) fn too_long(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = lines > MAX_LINES;
    long.then(|| format!("{lines} lines, at most {MAX_LINES} are allowed"))
        .into_iter()
        .collect()
}

/// Attributes and macros that ask for a feature of the build.
pub(crate) fn features(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("cfg") && code.contains("feature =") && !code.contains("target_feature")
        })
        .map(|(at, _)| format!("line {}: asks for a build feature", at + 1))
        .collect()
}

/// Dependencies of the workspace, its own crates apart, that have no line "- `name`" in `reasons`.
pub(crate) fn without_reason(manifest: &str, reasons: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
    let names = manifest["workspace"]["dependencies"].as_table();
    let names = names.expect("the workspace has dependencies").iter();
    names
        .filter(|(_, source)| source.get("path").is_none())
        .filter(|(name, _)| !reasons.contains(&format!("\n- `{name}`")))
        .map(|(name, _)| format!("{name} has no reason"))
        .collect()
}

fn graph(files: &[(&str, &str)]) -> Crate {
    let mut found = Crate::default();
    for (path, text) in files {
        let path = path.split("::").filter(|part| !part.is_empty());
        found.add(path.map(String::from).collect(), text);
    }
    found
}

#[test]
fn a_circle_is_found_however_its_uses_are_written() {
    for back in [
        "use super::a::A;",
        "use crate::{a::{A, B}};",
        "fn f() { crate::a::f() }",
        "fn f() { assert!(super::a::f()) }",
        "use super::A;",
        "mod inline { use super::super::a::A; }",
    ] {
        let circles = graph(&[
            ("", "mod a; mod b; pub use a::A;"),
            ("a", "use super::b::B; pub struct A;"),
            ("b", back),
        ])
        .circles();
        assert_eq!(circles.len(), 1, "{back}");
    }
}

#[test]
fn a_circle_through_a_folder_or_through_the_parent_is_found() {
    let folder = graph(&[
        ("", "mod a; mod b;"),
        ("a", "mod x; mod y;"),
        ("a::x", "use crate::b::B;"),
        ("a::y", ""),
        ("b", "use crate::a::y::Y;"),
    ]);
    assert_eq!(folder.circles().len(), 1);
    let parent = graph(&[("", "mod a; fn f() { a::g() }"), ("a", "use super::f;")]);
    assert_eq!(parent.circles().len(), 1);
}

#[test]
fn modules_in_order_and_tests_are_no_circle() {
    let tree = graph(&[
        ("", "mod a; mod b; pub use a::A; pub struct Error;"),
        ("a", "use super::{Error, b::B}; pub struct A;"),
        (
            "b",
            "use super::Error; use std::fmt; #[cfg(test)] mod tests { use super::super::a::A; }",
        ),
    ]);
    assert_eq!(tree.circles(), [""; 0]);
    assert_eq!(tree.uses().len(), 3);
}

#[test]
fn a_module_may_use_lower_layers_only() {
    assert_eq!(wrong_layer("http", "db"), None);
    assert_eq!(wrong_layer("db", "db"), None);
    assert!(wrong_layer("db", "http").is_some());
    assert!(wrong_layer("serve", "train").is_some());
}

#[test]
fn a_dependency_away_from_its_home_is_found() {
    for text in [
        "use axum::Router;",
        "use axum as web;",
        "use {axum::Router, std::fs};",
        "fn f() { axum::serve(x) }",
    ] {
        assert_eq!(strays("ingest", text).len(), 1, "{text}");
        assert_eq!(strays("http", text), [""; 0], "{text}");
    }
    let namesakes = "use crate::clap::Size; fn f() { let axum = 1; self.axum = axum; }";
    assert_eq!(strays("ingest", namesakes), [""; 0]);
}

#[test]
fn a_file_without_its_head_and_one_line_too_many_are_found() {
    assert_eq!(without_head("use std::fs;\n//! Late.").len(), 1);
    assert_eq!(without_head("//! Head."), [""; 0]);
    assert_eq!(too_long(&"\n".repeat(MAX_LINES)), [""; 0]);
    assert_eq!(too_long(&"\n".repeat(MAX_LINES + 1)).len(), 1);
}

#[test]
fn a_build_feature_is_found_and_a_target_is_not() {
    for text in [
        r#"#[cfg(feature = "cuda")]"#,
        r#"#[cfg_attr(not(feature = "cuda"), x)]"#,
    ] {
        assert_eq!(features(text).len(), 1, "{text}");
    }
    let others = "#[cfg(target_feature = \"avx2\")]\n#[cfg(test)]\nlet feature = 1;";
    assert_eq!(features(others), [""; 0]);
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let manifest = "[workspace.dependencies]\na = \"1\"\nb = \"1\"\nkith-c = { path = \"c\" }\n";
    let findings = without_reason(manifest, "# Head\n- `a`: needed\n");
    assert_eq!(findings, ["b has no reason"]);
}

//! Replays the corpora of the fuzz targets (`fuzz/README.md`), so that targets and corpora stay whole between runs.

use std::{fs, path::Path};

// The targets are a package of their own, which these tests do not build.
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

use targets::TARGETS;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_must_hold_holds_for_every_input_of_the_corpora_and_kith_accepts_some_of_each() {
    for (name, target) in TARGETS {
        let folder = Path::new(CORPUS).join(name);
        let accept = |input: &String| {
            // Shown where the target panics.
            eprintln!("{name}/{input}");
            target(&fs::read(folder.join(input)).unwrap())
        };
        let inputs = names(&folder);
        let accepted = inputs.iter().filter(|input| accept(input)).count();
        assert!((1..inputs.len()).contains(&accepted), "{name}: {accepted}");
    }
}

#[test]
fn every_target_has_a_corpus_a_program_and_its_place_in_the_manifest() {
    let targets = TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(names(Path::new(CORPUS)), targets);
    let fuzz = Path::new(CORPUS).parent().unwrap();
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in &targets {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("kith_fuzz::{name}(bytes)")));
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")));
    }
}

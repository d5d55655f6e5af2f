//! The CUDA kernels compiled as C++ and run on the CPU, one thread for each of the GPU's.

use std::{fs, path::Path, process::Command};

#[test]
#[ignore = "needs a C++20 compiler named c++"]
fn the_gpus_kernels_compute_what_they_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    for half in [0, 1] {
        let program = folder.path().join(format!("kernels{half}"));
        let compiled = Command::new("c++")
            .args(["-std=c++20", "-O1", "-pthread", &format!("-DHALF={half}")])
            .arg(format!("-I{}", root.join("src/cuda").display()))
            .arg(root.join("tests/cuda/emulate.cpp"))
            .arg("-o")
            .arg(&program)
            .output()
            .expect("a C++ compiler");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        let run = Command::new(&program).output().expect("it starts");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
    }
}

/// The kernels that are launched by name, in calls of these forms.
fn launched(text: &str) -> Vec<&str> {
    let calls = ["each", "launch", "fold", "transpose_weights"];
    let strings = text.match_indices("(\"").filter(|(at, _)| {
        let before = &text[..*at];
        calls.iter().any(|call| before.ends_with(call))
    });
    strings
        .filter_map(|(at, quote)| text[at + quote.len()..].split('"').next())
        .collect()
}

#[test]
fn every_kernel_that_is_launched_is_defined_and_the_other_way_round() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let source = fs::read_to_string(folder.join("kernels.cu")).expect("the kernels");
    let definitions = source.split("__global__ void ").skip(1);
    let mut defined: Vec<&str> = definitions
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let files = fs::read_dir(folder).expect("the sources");
    let texts: Vec<String> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| fs::read_to_string(path).expect("a source"))
        .collect();
    let mut used: Vec<&str> = texts.iter().flat_map(|text| launched(text)).collect();
    defined.sort_unstable();
    used.sort_unstable();
    used.dedup();
    assert!(!defined.is_empty());
    assert_eq!(used, defined);
}

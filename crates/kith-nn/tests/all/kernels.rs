//! The CUDA kernels compiled as C++ and run on the CPU, one thread for each of the GPU's.

use std::{path::Path, process::Command};

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

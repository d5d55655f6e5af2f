//! The fuzz targets as a library: what they do with an input (`targets/`), and what their programs need of libFuzzer.

mod targets;

pub use targets::*;

/// Lets a panic unwind once it is printed. libFuzzer's own hook ends the process, although kith answers a codec's panic as a broken image and a
/// handler's with 500. One that leaves the target still ends the process.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

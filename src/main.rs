//! The `kith` program: everything it does is in the library.

fn main() -> std::process::ExitCode {
    kith::cli::run()
}

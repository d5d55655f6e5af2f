//! The `kith` program: everything it does is in the library.

// Training frees arrays of many megabytes on other threads than it took them from, and glibc keeps the room of each thread's apart: after fifteen minutes of
// everything at once it held 1.8 GB of which 0.7 were in use. jemalloc gives unused pages back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    kith::cli::run()
}

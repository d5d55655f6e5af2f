//! The `kith` program: everything it does is in the library.

// Training frees arrays of many megabytes on other threads than it took them from, and glibc keeps the room of each thread's apart: after fifteen minutes of
// everything at once it held 1.8 GB of which 0.7 were in use. jemalloc gives unused pages back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings: the address of a string that ends with a zero. Unused memory goes back to the system after one second; jemalloc's default is ten
/// (docs/architecture.md).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &u8 = &b"dirty_decay_ms:1000\0"[0];

fn main() -> std::process::ExitCode {
    kith::cli::run()
}

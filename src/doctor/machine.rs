//! The processor, the memory and the limits of the operating system.

use std::{num::NonZero, thread};

use rustix::process::{Resource, getrlimit};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::check::Check;
use crate::config::Settings;
use kith_nn::Purpose;

const MIB: u64 = 1 << 20;
/// Resident memory of a server with the full network and training, beside its caches and the decoders' share (docs/sizing.md).
const AT_REST_MIB: u64 = 700;
/// Files that are open beside connections: the database, images that are read, checkpoints, logs.
const OTHER_FILES: u64 = 128;

/// How many cores there are, and whether they have the instructions that the encoder's kernels are written for.
pub(super) fn processor(settings: &Settings) -> Check {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let wide = wide_instructions();
    let found = format!(
        "{cores} cores{}",
        wide.map_or(String::new(), |name| format!(" with {name}"))
    );
    if wide.is_none() {
        return Check::warning(
            "processor",
            found,
            "embeddings take several times as long without AVX2 or AVX-512: in a virtual machine, pass the host's processor through",
        );
    }
    if cores == 1 && settings.training.enabled {
        return Check::warning(
            "processor",
            found,
            "training pauses while embeddings are computed and gets training.min_share beside them: a second core lets both go on",
        );
    }
    Check::good("processor", found)
}

fn wide_instructions() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return Some("AVX-512");
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Some("AVX2");
        }
        None
    }
    #[cfg(not(target_arch = "x86_64"))]
    Some("this processor's own instructions")
}

/// Whether `encoder.device` can be opened.
pub(super) fn device(settings: &Settings) -> Check {
    let name = &settings.encoder.device;
    match settings.device(Purpose::Serving) {
        Ok(_) => Check::good("device", format!("encoder.device {name} can be opened")),
        Err(error) => Check::problem(
            "device",
            format!("encoder.device {name} cannot be opened: {error}"),
            "set encoder.device to cpu, or see docs/cuda.md",
        ),
    }
}

/// Whether what the settings allow fits into memory.
pub(super) fn memory(settings: &Settings) -> Check {
    let only_memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = match System::new_with_specifics(only_memory) {
        Ok(system) => system,
        Err(error) => {
            let found = format!("the machine's memory is unknown: {error}");
            return Check::warning("memory", found, "look at it with free");
        }
    };
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    let total = system.total_memory().min(limit.unwrap_or(u64::MAX));
    judge_memory(total / MIB, wanted_mib(settings))
}

/// MiB of a server under full load.
fn wanted_mib(settings: &Settings) -> u64 {
    let bodies = settings.server.max_buffered_bytes as u64 / MIB;
    let decoders = settings.limits.decode_memory_mb;
    let caches = settings.serving.cache_mb + settings.training.cache_mb as u64;
    AT_REST_MIB + bodies + decoders + caches
}

fn judge_memory(total: u64, wanted: u64) -> Check {
    let found =
        format!("{total} MiB of memory, of which a server may use {wanted} MiB under full load");
    if wanted > total {
        return Check::warning(
            "memory",
            found,
            "lower limits.decode_memory_mb, server.max_buffered_bytes, training.cache_mb or serving.cache_mb",
        );
    }
    Check::good("memory", found)
}

/// Whether a process may open as many files as the settings allow connections.
pub(super) fn open_files(settings: &Settings) -> Check {
    // None: there is no limit.
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    judge_open_files(most, settings.server.max_connections as u64 + OTHER_FILES)
}

fn judge_open_files(most: u64, wanted: u64) -> Check {
    if wanted > most {
        return Check::problem(
            "open files",
            format!("a process may open {most} files, a server needs up to {wanted}"),
            format!(
                "raise it (ulimit -n {wanted}, or LimitNOFILE={wanted} for systemd), or lower server.max_connections"
            ),
        );
    }
    Check::good(
        "open files",
        format!("enough: a server needs up to {wanted}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn limits_are_met_exactly_or_not() {
        assert_eq!(judge_memory(2000, 2000).state, State::Good);
        assert_eq!(judge_memory(1999, 2000).state, State::Warning);
        assert_eq!(judge_open_files(640, 640).state, State::Good);
        let short = judge_open_files(639, 640);
        assert_eq!(short.state, State::Problem);
        assert!(short.remedy.unwrap().contains("ulimit -n 640"));
    }

    #[test]
    fn every_cache_of_the_settings_counts() {
        let mut settings = Settings::load(None, &[]).unwrap();
        let before = wanted_mib(&settings);
        settings.training.cache_mb += 10;
        settings.serving.cache_mb += 20;
        settings.limits.decode_memory_mb += 40;
        settings.server.max_buffered_bytes += 80 << 20;
        assert_eq!(wanted_mib(&settings) - before, 150);
    }
}

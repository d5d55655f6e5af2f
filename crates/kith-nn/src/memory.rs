//! Memory of this process as the kernel counts it; Linux only, elsewhere nothing is known.
//! Must never know: what the memory is for.

use std::fs;

/// The memory that `work` adds to this process at its worst moment, in bytes. What the process freed before but kept counts
/// as there already, so a fresh process gives the truth.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = reset_peak().and_then(|()| resident());
    let done = work();
    let added = status("VmHWM:").zip(before);
    (
        done,
        added.map(|(peak, before)| peak.saturating_sub(before)),
    )
}

/// Bytes of this process that lie in memory.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Lets the peak begin anew at what is resident now (proc(5), `clear_refs`).
fn reset_peak() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// A field of `/proc/self/status` that has kibibytes.
fn status(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "only Linux tells")]
    fn a_peak_counts_what_was_there_for_a_moment() {
        let bytes = 256 << 20;
        let (sum, peak) = peak_of(|| {
            let filled = std::hint::black_box(vec![1u8; bytes]);
            filled.iter().map(|byte| u64::from(*byte)).sum::<u64>()
        });
        assert_eq!(sum, bytes as u64);
        // Other tests of this process free and take a little meanwhile.
        assert!(peak.unwrap() > bytes as u64 / 2, "{peak:?}");
    }
}

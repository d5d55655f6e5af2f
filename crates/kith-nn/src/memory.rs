//! Memory of this process as Linux counts it. On other systems it is unknown (`None`).

use std::fs;

/// Calls `work` and returns its result with the bytes that it added to this process's memory at its peak.
///
/// Memory that the process had freed but kept from the system counts as used before, so only a new process gives the true value.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = reset_peak().and_then(|()| resident());
    let result = work();
    let added = status("VmHWM:").zip(before);
    (
        result,
        added.map(|(peak, before)| peak.saturating_sub(before)),
    )
}

/// Resident memory of this process in bytes.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Resets the peak to the memory that is resident now (proc(5), `clear_refs`).
fn reset_peak() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// A field of `/proc/self/status` in kibibytes, as bytes.
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
    #[cfg_attr(not(target_os = "linux"), ignore = "needs Linux")]
    fn a_peak_counts_memory_that_was_used_briefly() {
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

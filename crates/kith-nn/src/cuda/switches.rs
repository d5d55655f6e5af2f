//! Environment variables that turn a way of computing off, to measure what it brings. Read once.

use std::sync::OnceLock;

fn is(cell: &'static OnceLock<bool>, name: &str, value: &str) -> bool {
    *cell.get_or_init(|| std::env::var(name).is_ok_and(|found| found == value))
}

fn number(cell: &'static OnceLock<Option<usize>>, name: &str) -> Option<usize> {
    *cell.get_or_init(|| std::env::var(name).ok()?.parse().ok())
}

/// Rows of pixels in the channels of the stem's input: 8, 2 with `KITH_CUDA_STEM=square`, 0 (the channels are padded to eight and nothing is folded)
/// with `KITH_CUDA_STEM=plain`.
pub(super) fn stem_rows() -> usize {
    static CELL: OnceLock<usize> = OnceLock::new();
    *CELL.get_or_init(|| match std::env::var("KITH_CUDA_STEM").as_deref() {
        Ok("plain") => 0,
        Ok("square") => 2,
        _ => 8,
    })
}

/// `KITH_CUDA_BIAS=apart`: a bias without ReLU is added after the convolution.
pub(super) fn bias_apart() -> bool {
    static CELL: OnceLock<bool> = OnceLock::new();
    is(&CELL, "KITH_CUDA_BIAS", "apart")
}

/// `KITH_CUDA_SHORTCUT=cudnn`: 1 × 1 convolutions of stride 2 are cuDNN's.
pub(super) fn cudnn_shortcut() -> bool {
    static CELL: OnceLock<bool> = OnceLock::new();
    is(&CELL, "KITH_CUDA_SHORTCUT", "cudnn")
}

/// `KITH_CUDA_AHEAD=off`: pixels of the next step are not uploaded during the backward pass.
pub(super) fn no_upload_ahead() -> bool {
    static CELL: OnceLock<bool> = OnceLock::new();
    is(&CELL, "KITH_CUDA_AHEAD", "off")
}

/// `KITH_CUDA_PAGE_KB`: KiB of a pinned page.
pub(super) fn page_kib() -> Option<usize> {
    static CELL: OnceLock<Option<usize>> = OnceLock::new();
    number(&CELL, "KITH_CUDA_PAGE_KB")
}

/// `KITH_CUDA_PART`: log2 of the pixels of a part.
pub(super) fn part_pixels() -> Option<usize> {
    static CELL: OnceLock<Option<usize>> = OnceLock::new();
    number(&CELL, "KITH_CUDA_PART")
}

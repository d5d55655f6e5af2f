//! The two register tiles everything is made of: rows times packed columns, and sums of outer products over rows.
//! Must never know: images, layers.
//!
//! A "row" of the left matrix need not be contiguous: it is a few runs of contiguous values at a fixed stride. That is
//! how a convolution reads its window straight from the (padded) image: one run for each kernel row.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

/// Rows of a register tile: 6 rows × 2 vectors of sums, 2 vectors of weights and 1 broadcast fill AVX2's 16 registers.
const TILE_ROWS: usize = 6;
/// Rows summed before a gradient tile goes back to memory, so that what it reads stays in the first-level cache.
pub(super) const BLOCK: usize = 128;

/// Columns in a packed panel: two vectors of this processor.
pub(super) fn panel_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

/// At most one vector from memory; missing lanes are 0.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0 {
        [whole, ..] => *whole,
        [] => simd.partial_load_f32s(from),
    }
}

/// At most one vector to memory.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, value: S::f32s, to: &mut [f32]) {
    if to.len() < S::F32_LANES {
        simd.partial_store_f32s(to, value);
    } else if let [whole, ..] = S::as_mut_simd_f32s(to).0 {
        *whole = value;
    }
}

/// How a row lies in its data: `count` runs of `len` values, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) count: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

impl Runs {
    /// One contiguous run.
    pub(super) fn one(len: usize) -> Self {
        Self {
            count: 1,
            len,
            stride: 0,
        }
    }

    /// Values in a row.
    pub(super) fn depth(self) -> usize {
        self.count * self.len
    }
}

/// What happens to a finished sum before it is stored: `+ bias`, `+ residual`, `max(0, ·)`, in this order.
#[derive(Clone, Copy, Default)]
pub(super) struct Epilogue<'a> {
    /// One value a column.
    pub(super) bias: Option<&'a [f32]>,
    /// Laid out as the output.
    pub(super) residual: Option<&'a [f32]>,
    pub(super) relu: bool,
}

/// `out[r, c] = Σ_k data[offsets[r] + k] · panels[k, c]`, with `k` over the runs.
pub(super) struct Multiply<'a> {
    pub(super) data: &'a [f32],
    /// Where each row starts.
    pub(super) offsets: &'a [usize],
    pub(super) runs: Runs,
    /// `[panel][depth][panel_width]`, the last panel padded with zeros.
    pub(super) panels: &'a [f32],
    /// From the start of a panel to that of the next.
    pub(super) panel_stride: usize,
    /// `[rows, columns]`.
    pub(super) out: &'a mut [f32],
    pub(super) columns: usize,
    pub(super) epilogue: Epilogue<'a>,
}

impl Multiply<'_> {
    /// Runs on the best instructions of this processor.
    pub(super) fn run(self) {
        debug_assert_eq!(self.out.len(), self.offsets.len() * self.columns);
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: usize,
        weights: &[S::f32s],
    ) {
        let mut sums = [[simd.splat_f32s(0.0); 2]; R];
        let offsets: [usize; R] = from_fn(|r| self.offsets[row + r]);
        for (run, weights) in weights.chunks_exact(2 * self.runs.len).enumerate() {
            let rows: [&[f32]; R] =
                from_fn(|r| &self.data[offsets[r] + run * self.runs.stride..][..self.runs.len]);
            for (k, pair) in weights.chunks_exact(2).enumerate().take(self.runs.len) {
                for r in 0..R {
                    let value = simd.splat_f32s(rows[r][k]);
                    sums[r][0] = simd.mul_add_e_f32s(value, pair[0], sums[r][0]);
                    sums[r][1] = simd.mul_add_e_f32s(value, pair[1], sums[r][1]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                self.store(simd, row + r, (2 * panel + half) * S::F32_LANES, sum);
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd>(&mut self, simd: S, row: usize, column: usize, mut sum: S::f32s) {
        if column >= self.columns {
            return;
        }
        let end = self.columns.min(column + S::F32_LANES);
        if let Some(bias) = self.epilogue.bias {
            sum = simd.add_f32s(sum, load(simd, &bias[column..end]));
        }
        let at = row * self.columns + column..row * self.columns + end;
        if let Some(residual) = self.epilogue.residual {
            sum = simd.add_f32s(sum, load(simd, &residual[at.clone()]));
        }
        if self.epilogue.relu {
            // In this order a NaN stays one: x86 gives back the second operand.
            sum = simd.max_f32s(simd.splat_f32s(0.0), sum);
        }
        store(simd, sum, &mut self.out[at]);
    }
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (panels, len) = (self.panels, self.runs.depth() * 2 * S::F32_LANES);
        for panel in 0..self.columns.div_ceil(2 * S::F32_LANES) {
            let weights = S::as_simd_f32s(&panels[panel * self.panel_stride..][..len]).0;
            for (row, rows) in groups(self.offsets.len()) {
                match rows {
                    1 => self.tile::<S, 1>(simd, row, panel, weights),
                    2 => self.tile::<S, 2>(simd, row, panel, weights),
                    3 => self.tile::<S, 3>(simd, row, panel, weights),
                    4 => self.tile::<S, 4>(simd, row, panel, weights),
                    5 => self.tile::<S, 5>(simd, row, panel, weights),
                    _ => self.tile::<S, 6>(simd, row, panel, weights),
                }
            }
        }
    }
}

/// `out[k, c] += Σ_r data[offsets[r] + start + k] · right[r, c]`, summed in blocks of [`BLOCK`] rows.
pub(super) struct OuterSum<'a> {
    pub(super) data: &'a [f32],
    /// Where each row starts.
    pub(super) offsets: &'a [usize],
    /// The first value of each row that is wanted.
    pub(super) start: usize,
    /// What [`pack_blocks`] made.
    pub(super) right: &'a [f32],
    /// `[values wanted of each row, columns]`.
    pub(super) out: &'a mut [f32],
    pub(super) columns: usize,
}

impl OuterSum<'_> {
    /// Runs on the best instructions of this processor.
    pub(super) fn run(self) {
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&mut self, simd: S, k: usize, block: usize, panel: usize) {
        let rows = block * BLOCK..self.offsets.len().min((block + 1) * BLOCK);
        let width = 2 * S::F32_LANES;
        let stride = self.columns.div_ceil(width) * width;
        let right =
            &self.right[rows.start * stride + panel * rows.len() * width..][..rows.len() * width];
        let mut sums = [[simd.splat_f32s(0.0); 2]; R];
        let offsets = &self.offsets[rows];
        for (offset, pair) in offsets.iter().zip(S::as_simd_f32s(right).0.chunks_exact(2)) {
            let values = &self.data[offset + self.start + k..][..R];
            for r in 0..R {
                let value = simd.splat_f32s(values[r]);
                sums[r][0] = simd.mul_add_e_f32s(value, pair[0], sums[r][0]);
                sums[r][1] = simd.mul_add_e_f32s(value, pair[1], sums[r][1]);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let column = (2 * panel + half) * S::F32_LANES;
                if column < self.columns {
                    let end = self.columns.min(column + S::F32_LANES);
                    let out = &mut self.out
                        [(k + r) * self.columns + column..(k + r) * self.columns + end];
                    let total = simd.add_f32s(load(simd, out), sum);
                    store(simd, total, out);
                }
            }
        }
    }
}

impl WithSimd for OuterSum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let panels = self.columns.div_ceil(2 * S::F32_LANES);
        let wanted = self.out.len() / self.columns;
        for block in 0..self.offsets.len().div_ceil(BLOCK) {
            for (k, rows) in groups(wanted) {
                for panel in 0..panels {
                    match rows {
                        1 => self.tile::<S, 1>(simd, k, block, panel),
                        2 => self.tile::<S, 2>(simd, k, block, panel),
                        3 => self.tile::<S, 3>(simd, k, block, panel),
                        4 => self.tile::<S, 4>(simd, k, block, panel),
                        5 => self.tile::<S, 5>(simd, k, block, panel),
                        _ => self.tile::<S, 6>(simd, k, block, panel),
                    }
                }
            }
        }
    }
}

/// Splits `total` rows into (start, rows) of at most [`TILE_ROWS`], as even as can be: small tiles hide latency badly.
#[inline(always)]
fn groups(total: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = total.div_ceil(TILE_ROWS).max(1);
    let (base, larger) = (total / count, total % count);
    (0..count)
        .map(move |i| (i * base + i.min(larger), base + usize::from(i < larger)))
        .filter(|&(_, rows)| rows > 0)
}

/// Packs rows of `columns` values into one of the panels that [`Multiply`] reads.
pub(super) fn pack_panel<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    columns: usize,
    panel: usize,
    packed: &mut [f32],
) {
    let width = panel_width();
    let first = panel * width;
    let used = width.min(columns - first);
    for (row, out) in rows.zip(packed.chunks_exact_mut(width)) {
        out[..used].copy_from_slice(&row[first..first + used]);
        out[used..].fill(0.0);
    }
}

/// Packs rows of `columns` values for [`OuterSum`]: `[block][panel][row][panel_width]`.
pub(super) fn pack_blocks<'a>(
    rows: impl Iterator<Item = &'a [f32]> + Clone,
    columns: usize,
    packed: &mut [f32],
) {
    let width = panel_width();
    let padded = columns.div_ceil(width) * width;
    for (block, packed) in packed.chunks_mut(BLOCK * padded).enumerate() {
        let panel_len = packed.len() / padded * width;
        for (panel, packed) in packed.chunks_exact_mut(panel_len).enumerate() {
            pack_panel(rows.clone().skip(block * BLOCK), columns, panel, packed);
        }
    }
}

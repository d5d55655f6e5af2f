//! The two register tiles that all kernels are made of: rows times packed columns, and sums of outer products over rows.
//!
//! Rows of the left matrix and of the output may lie anywhere in memory. So a convolution reads pixels where they are and adds to others
//! without copying them.

use std::array::from_fn;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::background::yield_point;
use super::prefetch::{LINE, prefetch};
use super::simd::{load_two, panel_width, store_two};
use super::weights::{Bf16Format, F32Format, PanelFormat, Panels};

/// Rows of a register tile: 6 rows × 2 vectors of sums, 2 vectors of weights and 1 broadcast fill AVX2's 16 registers.
const TILE_ROWS: usize = 6;
/// Bytes by which weights are prefetched ahead: enough to cover the latency of memory, and a small part of a cache.
const PREFETCH_BYTES: usize = 8 << 10;
/// Rows summed before a gradient tile is written to memory, so that what it reads stays in the first-level cache.
pub(super) const BLOCK: usize = 128;

/// A row of the left matrix, by the index of its first value, and the row of the output that it goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowPair {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The rows of an output.
pub(super) trait OutputRows {
    /// Row `to`.
    fn row(&mut self, to: usize) -> &mut [f32];
}

/// Contiguous rows.
pub(super) struct Matrix<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) columns: usize,
}

impl OutputRows for Matrix<'_> {
    #[inline(always)]
    fn row(&mut self, to: usize) -> &mut [f32] {
        &mut self.data[to * self.columns..][..self.columns]
    }
}

/// Some columns of rows that lie anywhere.
pub(super) struct Columns<'a, 'row> {
    pub(super) rows: &'a mut [&'row mut [f32]],
    pub(super) columns: Range<usize>,
}

impl OutputRows for Columns<'_, '_> {
    #[inline(always)]
    fn row(&mut self, to: usize) -> &mut [f32] {
        &mut self.rows[to][self.columns.clone()]
    }
}

/// How a product reaches the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteMode {
    /// It replaces what is there.
    Overwrite,
    /// It is added to what is there.
    Add,
    /// It is added, and negative sums become zero.
    AddRelu,
}

/// `out[to, c] = Σ_k data[from + k] · panels[k, c]` for each pair.
pub(super) struct Multiply<'a, R: ?Sized> {
    pub(super) data: &'a [f32],
    pub(super) pairs: &'a [RowPair],
    pub(super) depth: usize,
    /// `[panel][depth][panel_width]`, the last panel padded with zeros.
    pub(super) panels: Panels<'a>,
    /// Weights from the start of a panel to that of the next.
    pub(super) panel_stride: usize,
    pub(super) out: &'a mut R,
    pub(super) columns: usize,
    pub(super) mode: WriteMode,
}

impl<R: OutputRows + ?Sized> Multiply<'_, R> {
    /// Runs with the widest vectors of this processor.
    pub(super) fn run(self) {
        yield_point();
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn all<W: PanelFormat, S: Simd>(&mut self, simd: S, values: &[W::Value]) {
        let all = self.pairs;
        // Values of memory in one row of a panel.
        let row = W::VECTORS * S::F32_LANES;
        let stride = self.panel_stride / (2 * S::F32_LANES) * row;
        for panel in 0..self.columns.div_ceil(2 * S::F32_LANES) {
            let upcoming = &values[panel * stride..];
            let weights = W::vectors::<S>(&upcoming[..self.depth * row]);
            for (first, rows) in row_groups(all.len()) {
                let pairs = &all[first..first + rows];
                let panel = Panel {
                    column: 2 * panel * S::F32_LANES,
                    weights,
                    upcoming: (first == 0).then_some(upcoming),
                };
                match rows {
                    1 => self.tile::<W, S, 1>(simd, pairs, panel),
                    2 => self.tile::<W, S, 2>(simd, pairs, panel),
                    3 => self.tile::<W, S, 3>(simd, pairs, panel),
                    4 => self.tile::<W, S, 4>(simd, pairs, panel),
                    5 => self.tile::<W, S, 5>(simd, pairs, panel),
                    _ => self.tile::<W, S, 6>(simd, pairs, panel),
                }
            }
        }
    }

    #[inline(always)]
    fn tile<W: PanelFormat, S: Simd, const N: usize>(
        &mut self,
        simd: S,
        pairs: &[RowPair],
        panel: Panel<W::Vector<S>, W::Value>,
    ) {
        let column = panel.column;
        let end = self.columns.min(column + 2 * S::F32_LANES);
        let mut sums = [[simd.splat_f32s(0.0); 2]; N];
        if self.mode != WriteMode::Overwrite {
            for (sums, pair) in sums.iter_mut().zip(pairs) {
                *sums = load_two(simd, &self.out.row(pair.to)[column..end]);
            }
        }
        let rows: [&[f32]; N] = from_fn(|r| &self.data[pairs[r].from..][..self.depth]);
        let weights = panel.weights.chunks_exact(W::VECTORS);
        for (k, vectors) in weights.enumerate().take(self.depth) {
            let [first, second] = W::row(simd, vectors);
            if let Some(upcoming) = panel.upcoming {
                let size = size_of::<W::Value>();
                let row = W::VECTORS * S::F32_LANES;
                for line in (0..row).step_by(LINE / size) {
                    prefetch(upcoming, k * row + line + PREFETCH_BYTES / size);
                }
            }
            for r in 0..N {
                let value = simd.splat_f32s(rows[r][k]);
                sums[r][0] = simd.mul_add_e_f32s(value, first, sums[r][0]);
                sums[r][1] = simd.mul_add_e_f32s(value, second, sums[r][1]);
            }
        }
        for (mut sums, pair) in sums.into_iter().zip(pairs) {
            if self.mode == WriteMode::AddRelu {
                // In this order a NaN stays one: x86 gives back the second operand.
                sums = sums.map(|sum| simd.max_f32s(simd.splat_f32s(0.0), sum));
            }
            store_two(simd, sums, &mut self.out.row(pair.to)[column..end]);
        }
    }
}

/// What a register tile reads of a panel.
struct Panel<'a, Vector, Value> {
    /// The output column of its first weight.
    column: usize,
    weights: &'a [Vector],
    /// The same weights and all that follow, for the first tile that reads them, which prefetches those that come next. A small batch
    /// waits for weights more than it computes.
    upcoming: Option<&'a [Value]>,
}

impl<R: OutputRows + ?Sized> WithSimd for Multiply<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.panels {
            Panels::F32(values) => self.all::<F32Format, S>(simd, values),
            Panels::Bf16(words) => self.all::<Bf16Format, S>(simd, words),
        }
    }
}

/// `out[k, c] += Σ_r data[from_r + start + k] · right[r, c]`, summed in blocks of [`BLOCK`] rows.
pub(super) struct OuterProductSum<'a> {
    pub(super) data: &'a [f32],
    /// Where each row of the left matrix starts.
    pub(super) pairs: &'a [RowPair],
    /// The first value of each row that is wanted.
    pub(super) start: usize,
    /// What [`pack_blocks`] made.
    pub(super) right: &'a [f32],
    /// `[values wanted of each row, columns]`.
    pub(super) out: &'a mut [f32],
    pub(super) columns: usize,
}

impl OuterProductSum<'_> {
    /// Runs with the widest vectors of this processor.
    pub(super) fn run(self) {
        yield_point();
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&mut self, simd: S, k: usize, block: usize, panel: usize) {
        let rows = block * BLOCK..self.pairs.len().min((block + 1) * BLOCK);
        let width = 2 * S::F32_LANES;
        let stride = self.columns.div_ceil(width) * width;
        let right =
            &self.right[rows.start * stride + panel * rows.len() * width..][..rows.len() * width];
        let mut sums = [[simd.splat_f32s(0.0); 2]; R];
        let pairs = &self.pairs[rows];
        for (pair, right) in pairs.iter().zip(S::as_simd_f32s(right).0.chunks_exact(2)) {
            let values = &self.data[pair.from + self.start + k..][..R];
            for r in 0..R {
                let value = simd.splat_f32s(values[r]);
                sums[r][0] = simd.mul_add_e_f32s(value, right[0], sums[r][0]);
                sums[r][1] = simd.mul_add_e_f32s(value, right[1], sums[r][1]);
            }
        }
        let column = 2 * panel * S::F32_LANES;
        let end = self.columns.min(column + 2 * S::F32_LANES);
        for (r, sums) in sums.into_iter().enumerate() {
            let out = &mut self.out[(k + r) * self.columns..][column..end];
            let [first, second] = load_two(simd, out);
            let total = [
                simd.add_f32s(first, sums[0]),
                simd.add_f32s(second, sums[1]),
            ];
            store_two(simd, total, out);
        }
    }
}

impl WithSimd for OuterProductSum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let panels = self.columns.div_ceil(2 * S::F32_LANES);
        let wanted = self.out.len() / self.columns;
        for block in 0..self.pairs.len().div_ceil(BLOCK) {
            for (k, rows) in row_groups(wanted) {
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

/// Splits `total` rows into (start, rows) of at most [`TILE_ROWS`], as evenly as possible: small tiles hide latency badly.
#[inline(always)]
fn row_groups(total: usize) -> impl Iterator<Item = (usize, usize)> {
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
    if used < width {
        for (row, out) in rows.zip(packed.chunks_exact_mut(width)) {
            out[..used].copy_from_slice(&row[first..]);
            out[used..].fill(0.0);
        }
        return;
    }
    for (row, out) in rows.zip(packed.chunks_exact_mut(width)) {
        // Arrays of known length are copied without a call.
        let row = row[first..first + width].as_chunks::<8>().0;
        for (value, out) in row.iter().zip(out.as_chunks_mut::<8>().0) {
            *out = *value;
        }
    }
}

/// Packs rows of `columns` values for [`OuterProductSum`]: `[block][panel][row][panel_width]`.
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

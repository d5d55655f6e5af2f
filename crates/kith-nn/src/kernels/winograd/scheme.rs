//! Winograd's minimal filtering for 3-tap filters, in one dimension: the transforms and their adjoints.
//!
//! The input is transformed to `V = Bᵀd`, the filter to `U = Gg`, and the outputs are `y = Aᵀ(U ⊙ V)` (Lavin & Gray 2016, §4). All maps
//! are linear, so the gradients are the same maps transposed. A line has six places, of which the smaller scheme uses the first four.

use pulp::Simd;

/// One line of a tile, each lane another channel.
pub(super) type Line<S> = [<S as Simd>::f32s; 6];

/// A tile size with its transforms.
pub(crate) trait Scheme: Send + Sync {
    /// Inputs, and products, of a line.
    const TILE: usize;
    /// Outputs of a line.
    const OUT: usize;
    /// `Bᵀ`: inputs to places.
    fn input<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
    /// `B`: the adjoint of [`Scheme::input`].
    fn input_adjoint<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
    /// `G`: three taps to places.
    fn filter<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
    /// `Gᵀ`: the adjoint of [`Scheme::filter`].
    fn filter_adjoint<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
    /// `Aᵀ`: products to outputs.
    fn output<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
    /// `A`: the adjoint of [`Scheme::output`].
    fn output_adjoint<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
}

/// F(4, 3): points 0, ±1, ±2, ∞.
pub(crate) struct F4x3;
/// F(2, 3): points 0, ±1, ∞.
pub(crate) struct F2x3;

/// `factor · a + b`.
#[inline(always)]
fn plus<S: Simd>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b)
}

#[inline(always)]
fn times<S: Simd>(simd: S, factor: f32, a: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.splat_f32s(factor), a)
}

impl Scheme for F4x3 {
    const TILE: usize = 6;
    const OUT: usize = 4;

    #[inline(always)]
    fn input<S: Simd>(simd: S, [d0, d1, d2, d3, d4, d5]: Line<S>) -> Line<S> {
        let (even, odd) = (plus(simd, -4.0, d2, d4), plus(simd, -4.0, d1, d3));
        let (wide, slope) = (simd.sub_f32s(d4, d2), simd.sub_f32s(d3, d1));
        [
            plus(simd, 4.0, d0, plus(simd, -5.0, d2, d4)),
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            plus(simd, 2.0, slope, wide),
            plus(simd, -2.0, slope, wide),
            plus(simd, 4.0, d1, plus(simd, -5.0, d3, d5)),
        ]
    }

    #[inline(always)]
    fn input_adjoint<S: Simd>(simd: S, [y0, y1, y2, y3, y4, y5]: Line<S>) -> Line<S> {
        let (near, far) = (simd.add_f32s(y1, y2), simd.add_f32s(y3, y4));
        let (near_odd, far_odd) = (simd.sub_f32s(y1, y2), simd.sub_f32s(y3, y4));
        [
            times(simd, 4.0, y0),
            plus(
                simd,
                -2.0,
                far_odd,
                times(simd, 4.0, simd.sub_f32s(y5, near_odd)),
            ),
            plus(simd, -5.0, y0, plus(simd, -4.0, near, simd.neg_f32s(far))),
            plus(simd, 2.0, far_odd, plus(simd, -5.0, y5, near_odd)),
            simd.add_f32s(y0, simd.add_f32s(near, far)),
            y5,
        ]
    }

    #[inline(always)]
    fn filter<S: Simd>(simd: S, [g0, g1, g2, zero, ..]: Line<S>) -> Line<S> {
        let near = times(simd, -1.0 / 6.0, simd.add_f32s(g0, g2));
        let far = plus(simd, 1.0 / 24.0, g0, times(simd, 1.0 / 6.0, g2));
        [
            plus(simd, 0.25, g0, zero),
            plus(simd, -1.0 / 6.0, g1, near),
            plus(simd, 1.0 / 6.0, g1, near),
            plus(simd, 1.0 / 12.0, g1, far),
            plus(simd, -1.0 / 12.0, g1, far),
            g2,
        ]
    }

    #[inline(always)]
    fn filter_adjoint<S: Simd>(simd: S, [u0, u1, u2, u3, u4, u5]: Line<S>) -> Line<S> {
        let (near, far) = (simd.add_f32s(u1, u2), simd.add_f32s(u3, u4));
        let (near_odd, far_odd) = (simd.sub_f32s(u2, u1), simd.sub_f32s(u3, u4));
        let zero = simd.splat_f32s(0.0);
        [
            plus(
                simd,
                0.25,
                u0,
                plus(simd, 1.0 / 24.0, far, times(simd, -1.0 / 6.0, near)),
            ),
            plus(simd, 1.0 / 6.0, near_odd, times(simd, 1.0 / 12.0, far_odd)),
            plus(simd, 1.0 / 6.0, simd.sub_f32s(far, near), u5),
            zero,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [m0, m1, m2, m3, m4, m5]: Line<S>) -> Line<S> {
        let (near, far) = (simd.add_f32s(m1, m2), simd.add_f32s(m3, m4));
        let (near_odd, far_odd) = (simd.sub_f32s(m1, m2), simd.sub_f32s(m3, m4));
        [
            simd.add_f32s(m0, simd.add_f32s(near, far)),
            plus(simd, 2.0, far_odd, near_odd),
            plus(simd, 4.0, far, near),
            plus(simd, 8.0, far_odd, simd.add_f32s(near_odd, m5)),
            m5,
            m5,
        ]
    }

    #[inline(always)]
    fn output_adjoint<S: Simd>(simd: S, [o0, o1, o2, o3, ..]: Line<S>) -> Line<S> {
        let (near, near_odd) = (simd.add_f32s(o0, o2), simd.add_f32s(o1, o3));
        let (far, far_odd) = (plus(simd, 4.0, o2, o0), plus(simd, 4.0, o3, o1));
        [
            o0,
            simd.add_f32s(near, near_odd),
            simd.sub_f32s(near, near_odd),
            plus(simd, 2.0, far_odd, far),
            plus(simd, -2.0, far_odd, far),
            o3,
        ]
    }
}

impl Scheme for F2x3 {
    const TILE: usize = 4;
    const OUT: usize = 2;

    #[inline(always)]
    fn input<S: Simd>(simd: S, [d0, d1, d2, d3, d4, d5]: Line<S>) -> Line<S> {
        let (first, last) = (simd.sub_f32s(d0, d2), simd.sub_f32s(d1, d3));
        [
            first,
            simd.add_f32s(d1, d2),
            simd.sub_f32s(d2, d1),
            last,
            d4,
            d5,
        ]
    }

    #[inline(always)]
    fn input_adjoint<S: Simd>(simd: S, [y0, y1, y2, y3, y4, y5]: Line<S>) -> Line<S> {
        let one = simd.add_f32s(simd.sub_f32s(y1, y2), y3);
        let two = simd.sub_f32s(simd.add_f32s(y1, y2), y0);
        [y0, one, two, simd.neg_f32s(y3), y4, y5]
    }

    #[inline(always)]
    fn filter<S: Simd>(simd: S, [g0, g1, g2, zero, ..]: Line<S>) -> Line<S> {
        let outer = times(simd, 0.5, simd.add_f32s(g0, g2));
        [
            g0,
            plus(simd, 0.5, g1, outer),
            plus(simd, -0.5, g1, outer),
            g2,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn filter_adjoint<S: Simd>(simd: S, [u0, u1, u2, u3, u4, u5]: Line<S>) -> Line<S> {
        let (sum, difference) = (simd.add_f32s(u1, u2), simd.sub_f32s(u1, u2));
        [
            plus(simd, 0.5, sum, u0),
            times(simd, 0.5, difference),
            plus(simd, 0.5, sum, u3),
            u3,
            u4,
            u5,
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [m0, m1, m2, m3, m4, m5]: Line<S>) -> Line<S> {
        let last = simd.sub_f32s(simd.sub_f32s(m1, m2), m3);
        [
            simd.add_f32s(m0, simd.add_f32s(m1, m2)),
            last,
            m2,
            m3,
            m4,
            m5,
        ]
    }

    #[inline(always)]
    fn output_adjoint<S: Simd>(simd: S, [o0, o1, o2, o3, ..]: Line<S>) -> Line<S> {
        [
            o0,
            simd.add_f32s(o0, o1),
            simd.sub_f32s(o0, o1),
            simd.neg_f32s(o1),
            o2,
            o3,
        ]
    }
}

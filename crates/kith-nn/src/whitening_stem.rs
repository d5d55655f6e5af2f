//! A stem that needs no training: filters that whiten patches of natural images.
//!
//! Random filters see mostly what all patches have in common, brightness and slow changes. The principal components of natural images are nearly the same
//! for all of them: cosines over the window times brightness or one of two opponent colours. So they are written down from a model of the images, in
//! which pixels are alike by a factor for each pixel between them, along both axes. docs/learning.md says what they bring.

use std::f64::consts::PI;

use super::kernels::Conv;

/// Correlation of neighbouring pixels.
const CORRELATION: f64 = 0.9;
/// Brightness and the two opponent colours: direction, and share of the variance.
const COLOURS: [([f64; 3], f64); 3] = [
    ([1.0, 1.0, 1.0], 0.9),
    ([1.0, 0.0, -1.0], 0.07),
    ([1.0, -2.0, 1.0], 0.03),
];
/// Variance of a pixel's three values together, after normalisation.
const VARIANCE: f64 = 3.0;
/// Mean square of the outputs in the model, as after He et al. 2015.
const MEAN_SQUARE: f64 = 2.0;
/// Fewest outputs of such a stem: of fewer components one of the colours would be left out altogether.
const MIN_OUTPUTS: usize = 16;
/// Largest difference that rounding explains, on another machine as well.
const ROUNDING: f32 = 1e-6;

/// A filter of unit norm, by its place among the cosines and the colours, and the variance of its output.
struct Component {
    rows: usize,
    columns: usize,
    colour: usize,
    variance: f64,
}

/// The weights of `conv`, `[kernel, kernel, 3, outputs]`, `None` if it is too narrow: the components with the most variance, and after them their negatives, so that a ReLU loses
/// nothing of them. Each is divided by the fourth root of its variance, which whitens half. A layer with more outputs than twice the components has them more than once.
pub(super) fn weights(conv: &Conv) -> Option<Vec<f32>> {
    if conv.outputs < MIN_OUTPUTS {
        return None;
    }
    let cosines = cosines(conv.kernel);
    let half = conv.outputs / 2;
    let variances: Vec<f64> = cosines.iter().map(|cosine| variance(cosine)).collect();
    let components = components(&variances);
    let chosen: Vec<&Component> = components.iter().cycle().take(half).collect();
    let power = chosen.iter().map(|one| one.variance.sqrt()).sum::<f64>() / half as f64;
    let gain = (MEAN_SQUARE / power).sqrt();
    let mut weights = Vec::with_capacity(conv.weights());
    for row in 0..conv.kernel {
        for column in 0..conv.kernel {
            for channel in 0..COLOURS.len() {
                let value = |one: &&Component| {
                    let place = cosines[one.rows][row] * cosines[one.columns][column];
                    let value = place * direction(one.colour)[channel];
                    (gain * value / one.variance.sqrt().sqrt()) as f32
                };
                weights.extend(chosen.iter().map(value));
                weights.extend(chosen.iter().map(|one| -value(one)));
            }
        }
    }
    Some(weights)
}

/// Whether `weights` are those of [`weights`], as no trained ones are.
pub(super) fn is_whitening(conv: &Conv, weights: &[f32]) -> bool {
    self::weights(conv).is_some_and(|own| {
        let mut pairs = own.into_iter().zip(weights);
        pairs.all(|(own, other)| (own - other).abs() <= ROUNDING)
    })
}

/// All components, those with the most variance first; of two with the same variance, that with the slower change along the rows. So rounding, which
/// differs between machines, does not decide their order.
fn components(variances: &[f64]) -> Vec<Component> {
    let mut components = Vec::new();
    for (rows, of_rows) in variances.iter().enumerate() {
        for (columns, of_columns) in variances.iter().enumerate() {
            for (colour, (_, share)) in COLOURS.iter().enumerate() {
                components.push(Component {
                    rows,
                    columns,
                    colour,
                    // Rows times columns first: a component and its mirror image then have the same variance to the last bit.
                    variance: VARIANCE * share * (of_rows * of_columns),
                });
            }
        }
    }
    components.sort_by(|one, other| other.variance.total_cmp(&one.variance));
    components
}

/// The discrete cosines of `count` points (type II), each of unit norm.
fn cosines(count: usize) -> Vec<Vec<f64>> {
    let cosine = |frequency: usize| {
        let norm = if frequency == 0 { 1.0 } else { 2.0 } / count as f64;
        let value = |at: usize| {
            (PI * (at as f64 + 0.5) * frequency as f64 / count as f64).cos() * norm.sqrt()
        };
        (0..count).map(value).collect()
    };
    (0..count).map(cosine).collect()
}

/// The variance of a row of pixels along `cosine`.
fn variance(cosine: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (at, one) in cosine.iter().enumerate() {
        for (other_at, other) in cosine.iter().enumerate() {
            sum += one * other * CORRELATION.powi(at.abs_diff(other_at) as i32);
        }
    }
    sum
}

/// The direction of a colour, of unit length.
fn direction(colour: usize) -> [f64; 3] {
    let (direction, _) = COLOURS[colour];
    let norm = direction.iter().map(|value| value * value).sum::<f64>();
    direction.map(|value| value / norm.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEM: Conv = Conv {
        inputs: 3,
        outputs: 64,
        kernel: 7,
        stride: 2,
        pad: 3,
    };

    fn filter(weights: &[f32], output: usize) -> Vec<f64> {
        let each = weights.iter().skip(output).step_by(STEM.outputs);
        each.map(|weight| f64::from(*weight)).collect()
    }

    fn product(one: &[f64], other: &[f64]) -> f64 {
        one.iter().zip(other).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn the_filters_are_at_right_angles_and_each_has_its_negative() {
        let weights = weights(&STEM).unwrap();
        assert_eq!(weights.len(), STEM.weights());
        for one in 0..32 {
            let filter_one = filter(&weights, one);
            for other in 0..one {
                // Sums of 147 products of values that are rounded to f32.
                assert!(product(&filter_one, &filter(&weights, other)).abs() < 1e-5);
            }
            let negative: Vec<f64> = filter_one.iter().map(|weight| -weight).collect();
            assert_eq!(filter(&weights, 32 + one), negative);
        }
    }

    #[test]
    fn in_the_model_the_outputs_have_he_s_mean_square_and_rare_ones_a_smaller_share_of_it() {
        let weights = weights(&STEM).unwrap();
        // The covariance of two values of a patch, by the model.
        let covariance = |one: usize, other: usize| {
            let [one, other] = [one, other].map(|at| (at / 21, at / 3 % 7, at % 3));
            let away = one.0.abs_diff(other.0) + one.1.abs_diff(other.1);
            let colours = (0..3).map(|colour| {
                let axis = direction(colour);
                VARIANCE * COLOURS[colour].1 * axis[one.2] * axis[other.2]
            });
            CORRELATION.powi(away as i32) * colours.sum::<f64>()
        };
        let mean_square = |filter: Vec<f64>| {
            let places = 0..filter.len();
            let along = |at: usize| {
                let row: Vec<f64> = places.clone().map(|other| covariance(at, other)).collect();
                product(&row, &filter)
            };
            places.clone().map(|at| filter[at] * along(at)).sum::<f64>()
        };
        let squares: Vec<f64> = (0..64)
            .map(|output| mean_square(filter(&weights, output)))
            .collect();
        let mean = squares.iter().sum::<f64>() / 64.0;
        assert!((mean - MEAN_SQUARE).abs() < 1e-4, "{mean}");
        assert!(
            squares[..32].is_sorted_by(|one, next| *one >= next - 1e-4),
            "{squares:?}"
        );
    }

    #[test]
    fn rounding_does_not_decide_which_filters_there_are_nor_their_order() {
        let order = |variances: &[f64]| -> Vec<[usize; 3]> {
            let chosen = components(variances);
            let place = |one: &Component| [one.rows, one.columns, one.colour];
            chosen.iter().take(32).map(place).collect()
        };
        let own: Vec<f64> = cosines(7).iter().map(|cosine| variance(cosine)).collect();
        let expected = order(&own);
        for at in 0..own.len() {
            for change in [f64::next_up, f64::next_down] {
                let mut other = own.clone();
                other[at] = change(other[at]);
                assert_eq!(order(&other), expected, "variance {at}");
            }
        }
    }

    #[test]
    fn they_are_known_again_and_others_are_not() {
        let mut own = weights(&STEM).unwrap();
        assert!(is_whitening(&STEM, &own));
        own[100] += 1e-5;
        assert!(!is_whitening(&STEM, &own));
    }

    #[test]
    fn the_narrowest_sees_all_colours_and_the_widest_has_all_filters() {
        for outputs in [MIN_OUTPUTS, 512] {
            let conv = Conv { outputs, ..STEM };
            let weights = weights(&conv).unwrap();
            assert_eq!(weights.len(), conv.weights());
            for colour in 0..COLOURS.len() {
                let seen = weights.chunks_exact(3 * outputs).any(|pixel| {
                    (0..outputs).any(|output| {
                        let values = [0, 1, 2].map(|at| f64::from(pixel[at * outputs + output]));
                        product(&values, &direction(colour)).abs() > 0.01
                    })
                });
                assert!(seen, "colour {colour} with {outputs} outputs");
            }
        }
        let conv = Conv {
            outputs: MIN_OUTPUTS - 8,
            ..STEM
        };
        assert_eq!(weights(&conv), None);
    }
}

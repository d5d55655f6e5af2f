//! Folds BatchNorm into the convolution before it (Ioffe & Szegedy 2015, §3.1, with the statistics fixed).

use super::WeightsError;

/// Added to the variance, as torchvision and timm have it.
pub(super) const EPSILON: f64 = 1e-5;

/// A BatchNorm's arrays, one value a channel each.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// The weight and bias of the convolution that computes what `weight` (`[outputs, …]`), `bias` (if it has one) and `norm` compute in turn:
/// `w γ / √(σ² + ε)` and `(b − μ) γ / √(σ² + ε) + β`.
///
/// # Errors
/// [`WeightsError::NotFinite`] with `name`, if a variance is negative or a result is not finite.
pub(super) fn fold(
    name: &str,
    mut weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    norm: &Norm,
) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    let outputs = norm.weight.len();
    let each = weight.len() / outputs;
    let mut biases = bias.unwrap_or_else(|| vec![0.0; outputs]);
    let negative = norm.variance.iter().any(|variance| *variance < 0.0);
    for (channel, (kernel, bias)) in weight.chunks_exact_mut(each).zip(&mut biases).enumerate() {
        let root = (f64::from(norm.variance[channel]) + EPSILON).sqrt();
        let scale = f64::from(norm.weight[channel]) / root;
        let centred = f64::from(*bias) - f64::from(norm.mean[channel]);
        *bias = (centred * scale + f64::from(norm.bias[channel])) as f32;
        for value in kernel {
            *value = (f64::from(*value) * scale) as f32;
        }
    }
    let finite = weight.iter().chain(&biases).all(|value| value.is_finite());
    if negative || !finite {
        return Err(WeightsError::NotFinite(name.to_owned()));
    }
    Ok((weight, biases))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_convolution_computes_what_the_two_compute_in_turn() {
        let norm = Norm {
            weight: vec![2.0, -1.0],
            bias: vec![0.5, 0.25],
            mean: vec![1.0, -2.0],
            variance: vec![4.0, 0.25],
        };
        let (weight, bias) =
            fold("x", vec![1.0, 2.0, 3.0, 4.0], Some(vec![0.0, 1.0]), &norm).unwrap();
        let input = [0.7f32, -0.3];
        for channel in 0..2 {
            let dot = |w: &[f32]| w[0] * input[0] + w[1] * input[1];
            let raw = dot(&[[1.0, 2.0], [3.0, 4.0]][channel]) + [0.0, 1.0][channel];
            let root = (norm.variance[channel] + 1e-5).sqrt();
            let expected =
                (raw - norm.mean[channel]) / root * norm.weight[channel] + norm.bias[channel];
            let found = dot(&weight[2 * channel..]) + bias[channel];
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_negative_variance_and_a_value_that_is_not_finite_are_refused_by_name() {
        let norm = |mean: f32, variance: f32| Norm {
            weight: vec![1.0],
            bias: vec![0.0],
            mean: vec![mean],
            variance: vec![variance],
        };
        for bad in [norm(0.0, -1e-6), norm(f32::NAN, 1.0), norm(0.0, f32::NAN)] {
            let refused = fold("layer1.0.conv1", vec![1.0], None, &bad).unwrap_err();
            assert!(refused.to_string().contains("layer1.0.conv1"));
        }
    }
}

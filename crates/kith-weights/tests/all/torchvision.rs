//! Weights that are written in torchvision's layout are read back as the same network.

use kith_nn::{Device, Encoder, EncoderConfig, NamedArray};
use kith_weights::{TorchvisionFiles, Weights};

use crate::files::file;

#[test]
fn what_is_written_for_torchvision_is_read_back_as_the_same_network() {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 16,
    };
    let mut arrays = Encoder::fresh(&config, 3, &Device::cpu())
        .unwrap()
        .to_arrays()
        .unwrap();
    let biases = arrays
        .iter_mut()
        .filter(|array| array.name.ends_with(".bias"));
    for (number, bias) in biases.enumerate() {
        bias.data
            .iter_mut()
            .for_each(|value| *value = 0.01 * number as f32);
    }
    let files = TorchvisionFiles::new(&config, &arrays).unwrap();
    let (_folder, path) = file(&files.network);
    let weights = Weights::read(&path).unwrap();
    assert_eq!(weights.dropped(), ["fc.bias", "fc.weight"]);
    let back = weights.arrays(&weights.projection(16));
    let is_head =
        |array: &&NamedArray| array.name.starts_with("fc") || array.name.starts_with("proj");
    let network = back.iter().filter(|array| !is_head(array));
    for found in network {
        let expected = arrays
            .iter()
            .find(|array| array.name == found.name)
            .unwrap();
        assert_eq!(found.shape, expected.shape);
        for (a, b) in found.data.iter().zip(&expected.data) {
            assert!((a - b).abs() <= 1e-6 * b.abs(), "{}: {a} {b}", found.name);
        }
    }
    let head = kith_nn::arrays_from_bytes(&files.head).unwrap();
    for found in head {
        assert_eq!(
            Some(&found),
            arrays.iter().find(|array| array.name == found.name)
        );
    }
    arrays.retain(|array| array.name != "layer1.0.conv1.bias");
    let refused = TorchvisionFiles::new(&config, &arrays)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("layer1.0.conv1.bias"), "{refused}");
}

//! Weights that are written in torchvision's layout are read back as the same network.

use std::collections::BTreeMap;

use kith_nn::{Device, Encoder, EncoderConfig, NamedArray};
use kith_weights::{TorchvisionFiles, Weights};

use crate::files::file;

/// Checks every array of a network's file: those of `resnet18().state_dict()` that a strict load wants, no more, and each with its values.
fn check_network(bytes: &[u8], arrays: &[NamedArray]) {
    let mut found: BTreeMap<String, NamedArray> = kith_nn::arrays_from_bytes(bytes)
        .unwrap()
        .into_iter()
        .map(|array| (array.name.clone(), array))
        .collect();
    let mut take = |name: &str, shape: &[usize]| {
        let array = found.remove(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(array.shape, shape, "{name}");
        array.data
    };
    let convolutions = arrays
        .iter()
        .filter(|array| array.shape.len() == 4 && !is_head(array));
    for conv in convolutions {
        assert_eq!(take(&conv.name, &conv.shape), conv.data, "{}", conv.name);
        let name = conv.name.strip_suffix(".weight").unwrap();
        let norm = match name.strip_suffix("downsample.0") {
            Some(block) => format!("{block}downsample.1"),
            None => name.replace("conv", "bn"),
        };
        let is_bias = |array: &&NamedArray| array.name == format!("{name}.bias");
        let bias = arrays.iter().find(is_bias).unwrap();
        let mut part = |part: &str| take(&format!("{norm}.{part}"), &bias.shape);
        assert_eq!(part("bias"), bias.data, "{norm}");
        let parts = (part("weight"), part("running_mean"), part("running_var"));
        for ((weight, mean), variance) in parts.0.iter().zip(&parts.1).zip(&parts.2) {
            assert_eq!((*weight, *mean), (1.0, 0.0), "{norm}");
            // PyTorch divides by the root of the variance and 1e-5.
            assert!((variance + 1e-5 - 1.0).abs() < 1e-6, "{norm}: {variance}");
        }
    }
    for (name, shape) in [("fc.weight", &[1000, 64][..]), ("fc.bias", &[1000])] {
        assert!(take(name, shape).iter().all(|value| *value == 0.0));
    }
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [""; 0], "no others");
}

/// Whether it is written beside the network, to the file of the head.
fn is_head(array: &NamedArray) -> bool {
    let layer = array.name.split('.').next();
    layer.is_some_and(|layer| ["fc", "projection", "places", "fine_places"].contains(&layer))
}

#[test]
fn what_is_written_for_torchvision_is_read_back_as_the_same_network() {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 16,
        towers: 1,
    };
    let mut arrays = Encoder::fresh(&config, 3, &Device::cpu())
        .unwrap()
        .to_arrays()
        .unwrap();
    // They are zero in a fresh encoder, as places' weights are.
    let biases = arrays
        .iter_mut()
        .filter(|array| array.name.ends_with(".bias") || array.name.ends_with("places.weight"));
    for (number, bias) in biases.enumerate() {
        bias.data
            .iter_mut()
            .for_each(|value| *value = 0.01 * number as f32);
    }
    let files = TorchvisionFiles::new(&config, &arrays).unwrap();
    check_network(&files.network, &arrays);
    let (_folder, path) = file(&files.network);
    let weights = Weights::read(&path).unwrap();
    assert_eq!(weights.dropped(), ["fc.bias", "fc.weight"]);
    let back = weights.arrays(&weights.projection(16));
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
    assert_eq!(head.len(), 8);
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

//! A file that PyTorch saved gives the features that PyTorch computes (`tests/golden/make.py`).

use kith_nn::{Device, Encoder, EncoderConfig};
use kith_weights::{ProjectionKind, Weights};

const SIDE: usize = 32;

/// The images of `make.py`, `[2, side, side, 3]`.
fn pixels() -> Vec<f32> {
    let value = |image: usize, y: usize, x: usize, channel: usize| {
        let phase = 0.9 * image as f64 + 1.3 * channel as f64 + 0.21 * y as f64 + 0.13 * x as f64;
        (phase.sin() * 2.0) as f32
    };
    let mut pixels = Vec::new();
    for (image, y) in (0..2).flat_map(|image| (0..SIDE).map(move |y| (image, y))) {
        for x in 0..SIDE {
            pixels.extend((0..3).map(|channel| value(image, y, x, channel)));
        }
    }
    pixels
}

fn expected() -> Vec<f32> {
    let arrays = kith_nn::arrays_from_bytes(include_bytes!("../golden/features.safetensors"));
    arrays.unwrap().remove(0).data
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn a_file_of_pytorch_gives_the_features_that_pytorch_computes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/narrow.pth");
    let weights = Weights::read(path.as_ref()).unwrap();
    assert_eq!((weights.width(), weights.features()), (8, 64));
    let dropped = ["module.backbone.fc.bias", "module.backbone.fc.weight"];
    assert_eq!(weights.dropped(), dropped);
    let expected = expected();
    let largest = expected.iter().copied().fold(0.0, f32::max);
    assert!(largest > 0.5, "the golden features are lively");

    for (dim, kind) in [
        (64, ProjectionKind::Identity),
        (16, ProjectionKind::Orthogonal),
    ] {
        let projection = weights.projection(dim);
        assert_eq!(projection.kind, kind);
        let config = EncoderConfig {
            width: 8,
            side: SIDE,
            dim,
            towers: 1,
        };
        let arrays = weights.arrays(&projection);
        let encoder = Encoder::from_arrays(&config, &arrays, &Device::cpu()).unwrap();
        let found = encoder.forward(&pixels()).unwrap();
        let difference = largest_difference(&found.hidden.data, &expected);
        assert!(difference < 1e-4, "features differ by {difference}");
        if kind == ProjectionKind::Identity {
            let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
            let unit = expected
                .chunks_exact(64)
                .flat_map(|row| row.iter().map(|x| x / length(row)));
            let difference = largest_difference(&found.embedding.data, &unit.collect::<Vec<_>>());
            assert!(
                difference < 1e-5,
                "embeddings differ from bare features by {difference}"
            );
        }
    }
}

//! The encoder's vectors, its weights in and out, and its errors.

use kith_nn::{
    CudaConfig, Device, Encoder, EncoderConfig, Images, NamedArray, NnError, Precision, Purpose,
};

use crate::{
    formula::values,
    support::{TINY, cpu, formula_encoder, pixels},
};

#[test]
fn a_vector_does_not_depend_on_the_others_in_its_batch() {
    let encoder = formula_encoder(&TINY);
    let pixels = pixels(&TINY, 5);
    let together = encoder.forward(&pixels).unwrap();
    for (i, image) in pixels.chunks_exact(32 * 32 * 3).enumerate() {
        let alone = encoder.forward(image).unwrap();
        assert_eq!(
            alone.embedding.data,
            together.embedding.data[i * 16..(i + 1) * 16]
        );
        assert_eq!(
            alone.hidden.data,
            together.hidden.data[i * 64..(i + 1) * 64]
        );
    }
}

#[test]
fn a_pixel_that_is_not_a_number_shows_in_the_vector() {
    let mut pixels = pixels(&TINY, 1);
    pixels[1500] = f32::NAN;
    let features = formula_encoder(&TINY).forward(&pixels).unwrap();
    assert!(features.embedding.data.iter().any(|value| value.is_nan()));
}

#[test]
fn weights_survive_the_way_out_and_in() {
    let encoder = formula_encoder(&TINY);
    let arrays = encoder.to_arrays().unwrap();
    let again = Encoder::from_arrays(&TINY, &arrays, &cpu()).unwrap();
    assert_eq!(again.to_arrays().unwrap(), arrays);
    let pixels = pixels(&TINY, 1);
    assert_eq!(
        again.forward(&pixels).unwrap(),
        encoder.forward(&pixels).unwrap()
    );
    assert_eq!(arrays[0].name, "conv1.weight");
    assert_eq!(arrays[0].shape, [8, 3, 7, 7]);
    assert_eq!(arrays[14].name, "layer2.0.downsample.0.weight");
    assert_eq!(arrays[14].shape, [16, 8, 1, 1]);
    assert_eq!(arrays[43].name, "projection.bias");
    assert_eq!(arrays[44].name, "places.weight");
    assert_eq!(arrays[44].shape, [16, 32, 2, 2]);
    assert_eq!(arrays[46].name, "fine_places.weight");
    assert_eq!(arrays[46].shape, [16, 8, 4, 4]);
}

#[test]
fn weights_from_before_places_were_read_give_the_embeddings_that_they_gave() {
    let mut arrays = formula_encoder(&TINY).to_arrays().unwrap();
    for array in &mut arrays[44..] {
        array.data.fill(0.0);
    }
    let zero = Encoder::from_arrays(&TINY, &arrays, &cpu()).unwrap();
    let old = Encoder::from_arrays(&TINY, &arrays[..44], &cpu()).unwrap();
    let found = old.forward(&pixels(&TINY, 2)).unwrap();
    assert_eq!(found, zero.forward(&pixels(&TINY, 2)).unwrap());
    assert_eq!(old.to_arrays().unwrap(), arrays);
    // Without places the embedding is the projection of the hidden features alone.
    let (weight, bias) = (&arrays[42].data, &arrays[43].data);
    for (embedding, hidden) in found
        .embedding
        .data
        .chunks(16)
        .zip(found.hidden.data.chunks(64))
    {
        let row = |at: usize| {
            let products = weight[64 * at..][..64].iter().zip(hidden);
            products.map(|(w, h)| w * h).sum::<f32>() + bias[at]
        };
        let sums: Vec<f32> = (0..16).map(row).collect();
        let length = sums.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (found, sum) in embedding.iter().zip(sums) {
            assert!((found - sum / length).abs() < 1e-5);
        }
    }
}

fn message<T>(result: Result<T, NnError>) -> String {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn arrays_that_do_not_fit_are_named() {
    let good = formula_encoder(&TINY).to_arrays().unwrap();
    let with = |change: fn(&mut Vec<NamedArray>)| {
        let mut arrays = good.clone();
        change(&mut arrays);
        message(Encoder::from_arrays(&TINY, &arrays, &cpu()))
    };
    let missing = with(|arrays| drop(arrays.remove(4)));
    assert!(
        missing.contains("`layer1.0.conv2.weight` is missing"),
        "{missing}"
    );
    let reshaped = with(|arrays| arrays[0].shape = vec![8, 3, 49]);
    assert!(
        reshaped.contains("`conv1.weight` has shape [8, 3, 49]"),
        "{reshaped}"
    );
    let short = with(|arrays| arrays[1].data.truncate(7));
    assert!(
        short.contains("`conv1.bias`") && short.contains("7 values"),
        "{short}"
    );
    let twice = with(|arrays| arrays.push(arrays[1].clone()));
    assert!(twice.contains("`conv1.bias` is there twice"), "{twice}");
    let extra = with(|arrays| {
        arrays.push(NamedArray {
            name: "bn1.weight".into(),
            shape: vec![0],
            data: vec![],
        })
    });
    assert!(
        extra.contains("`bn1.weight` is not part of the network"),
        "{extra}"
    );
}

#[test]
fn settings_and_devices_that_cannot_be_used_are_clear_errors() {
    let fresh = |config| message(Encoder::fresh(&config, 0, &cpu()));
    assert!(
        fresh(EncoderConfig { side: 100, ..TINY }).contains("side 100 must be a multiple of 32")
    );
    assert!(fresh(EncoderConfig { side: 256, ..TINY }).contains("side 256"));
    assert!(
        fresh(EncoderConfig { width: 12, ..TINY }).contains("width 12 must be a multiple of 8")
    );
    assert!(fresh(EncoderConfig { dim: 0, ..TINY }).contains("dim 0"));
    let open = |name| Device::open(name, Purpose::Serving, &CudaConfig::default());
    assert!(message(open("gpu")).contains("`gpu` is not known"));
    assert!(message(open("cuda:x")).contains("`cuda:x`"));
    // Without the feature, or without a GPU of this number.
    assert!(message(open("cuda:99")).contains("`cuda:99`"));
    let encoder = formula_encoder(&TINY);
    assert!(message(encoder.forward(&[0.0; 100])).contains("100 values"));
    assert!(message(encoder.forward(&[])).contains("0 values"));
    let tape = encoder.forward_train(&pixels(&TINY, 1)).unwrap();
    assert!(message(tape.backward(&[0.0; 15])).contains("15 values"));
}

#[test]
fn smaller_images_pass_as_through_an_encoder_of_their_size() {
    let small = formula_encoder(&TINY);
    let large = EncoderConfig { side: 64, ..TINY };
    let large = Encoder::from_arrays(&large, &small.to_arrays().unwrap(), &cpu()).unwrap();
    let pixels = pixels(&TINY, 3);
    let parts: Vec<&[f32]> = pixels.chunks(32 * 32 * 3).collect();
    let side = 32;
    let images = Images {
        side,
        parts: &parts,
    };
    assert_eq!(
        large.forward_images(images).unwrap(),
        small.forward(&pixels).unwrap()
    );
    let weight = values(7, 3 * 16);
    let gradients = [
        large.forward_train_uploaded(images, None).unwrap(),
        small.forward_train(&pixels).unwrap(),
    ]
    .map(|tape| tape.backward(&weight).unwrap().to_flat().unwrap());
    assert_eq!(gradients[0], gradients[1]);
    let refused = |side| {
        let images = Images {
            side,
            parts: &parts,
        };
        large.forward_images(images).unwrap_err().to_string()
    };
    for side in [0, 48, 256] {
        let text = format!("side {side} must be a multiple of 32");
        assert!(refused(side).contains(&text));
    }
    assert!(refused(64).contains("9216 values are not one or more images of 64"));
    // Its weights are packed for the size that it serves.
    let serving = large.only_encoding(Precision::F32).unwrap();
    let refused = serving.forward_images(images).unwrap_err().to_string();
    assert!(refused.contains("only encodes"), "{refused}");
}

#[test]
fn fresh_weights_follow_the_seed_and_keep_the_size_of_what_passes_through() {
    let fresh = |seed| Encoder::fresh(&TINY, seed, &cpu()).unwrap();
    assert_eq!(fresh(1).to_arrays().unwrap(), fresh(1).to_arrays().unwrap());
    assert_ne!(fresh(1).to_arrays().unwrap(), fresh(2).to_arrays().unwrap());
    let hidden = fresh(1).forward(&pixels(&TINY, 8)).unwrap().hidden.data;
    let square = hidden.iter().map(|value| value * value).sum::<f32>() / hidden.len() as f32;
    // A wide band: 8 channels make the size vary by several times from seed to seed.
    assert!((1e-3..1e2).contains(&square), "{square}");
}

#[test]
fn an_encoder_that_only_encodes_gives_the_same_vectors_and_has_no_other_copy_of_its_weights() {
    let (encoder, pixels) = (formula_encoder(&TINY), pixels(&TINY, 3));
    let features = encoder.forward(&pixels).unwrap();
    let encoder = encoder.only_encoding(Precision::F32).unwrap();
    assert_eq!(encoder.forward(&pixels).unwrap(), features);
    assert!(message(encoder.to_arrays()).contains("only encodes"));
    assert!(message(encoder.forward_train(&pixels)).contains("only encodes"));
}

#[test]
fn weights_in_16_bits_keep_vectors_and_their_neighbours() {
    // Tiled, direct and fully connected layers; maps of 8 to 1 pixels.
    let exact = formula_encoder(&TINY);
    let rounded = formula_encoder(&TINY).only_encoding(Precision::Bf16);
    let rounded = rounded.unwrap();
    let pixels = pixels(&TINY, 9);
    let (exact, rounded) = (
        exact.forward(&pixels).unwrap().embedding.data,
        rounded.forward(&pixels).unwrap().embedding.data,
    );
    let cosine =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
    let rows = || exact.chunks(TINY.dim).zip(rounded.chunks(TINY.dim));
    for (i, (a, b)) in rows().enumerate() {
        // The promise of the setting; it is about 1e-5 here.
        assert!(cosine(a, b) >= 0.999, "image {i}: {}", cosine(a, b));
        let nearest = exact
            .chunks(TINY.dim)
            .enumerate()
            .max_by(|x, y| cosine(x.1, b).total_cmp(&cosine(y.1, b)));
        assert_eq!(nearest.map(|(place, _)| place), Some(i));
    }
    assert_ne!(exact, rounded, "the setting does something");
}

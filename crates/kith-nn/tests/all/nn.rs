//! The encoder against PyTorch's numbers (`tests/golden/make_resnet.py`), against itself on other threads, and its errors.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use kith_nn::NamedArray;
use kith_nn::{
    CudaConfig, Device, Encoder, EncoderConfig, NnError, Optimizer, OptimizerConfig, OptimizerKind,
    Precision, Purpose,
};
use safetensors::SafeTensors;

const TINY: EncoderConfig = EncoderConfig {
    width: 8,
    side: 32,
    dim: 16,
};

fn cpu() -> Device {
    Device::cpu()
}

/// Uniform in [−1, 1): the hash of (stream, index) that the script uses.
fn values(stream: u32, count: usize) -> Vec<f32> {
    let value = |index: u32| {
        let mut z = index.wrapping_add(stream.wrapping_mul(0x9e37_79b9));
        z = (z ^ (z >> 16)).wrapping_mul(0x7feb_352d);
        z = (z ^ (z >> 15)).wrapping_mul(0x846c_a68b);
        z ^= z >> 16;
        (f64::from(z >> 8) / f64::from(1 << 23) - 1.0) as f32
    };
    (0..count as u32).map(value).collect()
}

/// The encoder whose weights follow the script's formula.
fn formula_encoder(config: &EncoderConfig) -> Encoder {
    let mut arrays = Encoder::fresh(config, 0, &cpu())
        .unwrap()
        .to_arrays()
        .unwrap();
    for (stream, array) in arrays.iter_mut().enumerate() {
        let fan_in = array.data.len() / array.shape[0];
        let bound = match array.name.as_str() {
            name if name.ends_with("bias") => 0.1,
            name if name.ends_with("conv2.weight") => (6.0 / fan_in as f64).sqrt() * 0.3,
            _ => (6.0 / fan_in as f64).sqrt(),
        };
        let data = values(stream as u32, array.data.len());
        array.data = data.iter().map(|value| value * bound as f32).collect();
    }
    Encoder::from_arrays(config, &arrays, &cpu()).unwrap()
}

fn pixels(config: &EncoderConfig, batch: usize) -> Vec<f32> {
    values(1000, batch * config.side * config.side * 3)
}

fn golden(file: &[u8]) -> HashMap<String, Vec<f32>> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let floats = |bytes: &[u8]| {
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), floats(view.data())))
        .collect()
}

fn stored() -> HashMap<String, Vec<f32>> {
    golden(include_bytes!("../golden/resnet.safetensors"))
}

/// The values that the script keeps of an array.
fn thin(data: &[f32], keep: usize) -> Vec<f32> {
    data.iter()
        .step_by(data.len().div_ceil(keep))
        .copied()
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// ‖a − b‖ / ‖b‖.
fn relative_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let squares =
        |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    let apart = squares(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (apart / squares(&mut b.iter().copied()).max(f32::MIN_POSITIVE)).sqrt()
}

/// Differences to PyTorch's numbers.
#[derive(Debug)]
struct Differences {
    /// The largest absolute one.
    embedding: f32,
    /// Relative.
    hidden: f32,
    /// The largest relative one of an array.
    gradients: f32,
}

impl Differences {
    /// The bounds allow for sums of thousands of products in another order.
    fn assert_small(&self) {
        let small = self.embedding < 1e-4 && self.hidden < 1e-4 && self.gradients < 1e-3;
        assert!(small, "{self:?}");
    }
}

/// Differences to the numbers under `prefix`.
fn compare(
    config: &EncoderConfig,
    batch: usize,
    keep: usize,
    wanted: &HashMap<String, Vec<f32>>,
    prefix: &str,
) -> Differences {
    let encoder = formula_encoder(config);
    let pixels = pixels(config, batch);
    let features = encoder.forward(&pixels).unwrap();
    let embedding = largest_difference(
        &features.embedding.data,
        &wanted[&format!("{prefix}embedding")],
    );
    let hidden = relative_difference(&features.hidden.data, &wanted[&format!("{prefix}hidden")]);
    let tape = encoder.forward_train(&pixels).unwrap();
    assert_eq!(tape.embedding(), &features.embedding);
    let gradients = tape
        .backward(&values(1001, batch * config.dim))
        .unwrap()
        .to_arrays()
        .unwrap();
    let apart = gradients.iter().map(|array| {
        let difference = relative_difference(
            &thin(&array.data, keep),
            &wanted[&format!("{prefix}gradient.{}", array.name)],
        );
        if difference > 1e-3 {
            eprintln!("{} is {difference} away", array.name);
        }
        difference
    });
    Differences {
        embedding,
        hidden,
        gradients: apart.fold(0.0, f32::max),
    }
}

#[test]
fn vectors_and_gradients_agree_with_pytorch() {
    compare(&TINY, 3, 96, &stored(), "").assert_small();
}

#[test]
fn sides_with_odd_activations_agree_with_pytorch() {
    let config = EncoderConfig { side: 96, ..TINY };
    compare(&config, 2, 24, &stored(), "side96.").assert_small();
}

/// Not run by default: needs numbers made with `--full 64 64 4` and `--full 64 96 4`, in the folder `KITH_GOLDEN`.
#[test]
#[ignore = "needs large golden numbers"]
fn the_full_width_agrees_with_pytorch() {
    let folder = std::env::var("KITH_GOLDEN").expect("KITH_GOLDEN names the folder");
    for side in [64, 96] {
        let file = std::fs::read(format!("{folder}/resnet-64-{side}.safetensors")).unwrap();
        let config = EncoderConfig {
            width: 64,
            side,
            dim: 128,
        };
        let differences = compare(&config, 4, 1 << 14, &golden(&file), "");
        eprintln!("side {side}: {differences:?}");
        differences.assert_small();
    }
}

fn optimizer_config(kind: OptimizerKind) -> OptimizerConfig {
    let beta2 = 0.98;
    OptimizerConfig {
        kind,
        weight_decay: 0.05,
        momentum: 0.9,
        beta2,
        epsilon: 1e-6,
        clip_norm: 1.0,
    }
}

fn train(encoder: &mut Encoder, optimizer: &mut Optimizer, rate: f32, steps: usize) {
    let pixels = pixels(encoder.config(), 3);
    let gradient = values(1001, 3 * encoder.config().dim);
    for _ in 0..steps {
        let gradients = encoder
            .forward_train(&pixels)
            .unwrap()
            .backward(&gradient)
            .unwrap();
        let norm = gradients.norm().unwrap();
        optimizer.step(encoder, &gradients, norm, rate).unwrap();
    }
}

#[test]
fn five_steps_of_each_optimizer_agree_with_pytorch() {
    let wanted = stored();
    let kinds = [
        ("adamw", OptimizerKind::Adamw),
        ("adam", OptimizerKind::Adam),
        ("sgd", OptimizerKind::Sgd),
    ];
    for (name, kind) in kinds {
        let mut encoder = formula_encoder(&TINY);
        let mut optimizer = Optimizer::new(&optimizer_config(kind), &encoder).unwrap();
        let rate = if kind == OptimizerKind::Sgd {
            0.01
        } else {
            0.001
        };
        train(&mut encoder, &mut optimizer, rate, 5);
        for array in encoder.to_arrays().unwrap() {
            let apart = largest_difference(
                &thin(&array.data, 24),
                &wanted[&format!("{name}.{}", array.name)],
            );
            // 1 % of one Adam step.
            assert!(apart < 1e-5, "{name} {} {apart}", array.name);
        }
    }
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(work)
}

fn one_training_run(config: &EncoderConfig) -> (Vec<NamedArray>, Vec<NamedArray>) {
    let mut encoder = Encoder::fresh(config, 7, &cpu()).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Adamw), &encoder).unwrap();
    train(&mut encoder, &mut optimizer, 0.001, 3);
    (encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap())
}

#[test]
fn training_is_bit_identical_from_run_to_run_and_on_any_number_of_threads() {
    let config = EncoderConfig { side: 64, ..TINY };
    let first = in_pool(1, || one_training_run(&config));
    for threads in [1, 2, 3] {
        assert!(
            in_pool(threads, || one_training_run(&config)) == first,
            "{threads} threads"
        );
    }
}

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
fn gradients_of_two_passes_add_up_to_that_of_the_batch() {
    let encoder = formula_encoder(&TINY);
    let (pixels, gradient) = (pixels(&TINY, 5), values(1001, 5 * 16));
    let backward = |images: std::ops::Range<usize>| {
        let tape = encoder
            .forward_train(&pixels[images.start * 3072..images.end * 3072])
            .unwrap();
        tape.backward(&gradient[images.start * 16..images.end * 16])
            .unwrap()
    };
    let mut sum = backward(0..2);
    sum.add(&backward(2..5)).unwrap();
    for (sum, whole) in sum
        .to_arrays()
        .unwrap()
        .iter()
        .zip(backward(0..5).to_arrays().unwrap())
    {
        // Only the order of the sums differs.
        assert!(
            relative_difference(&sum.data, &whole.data) < 1e-5,
            "{}",
            whole.name
        );
    }
}

#[test]
fn the_norm_is_that_of_all_gradients_and_shows_what_is_not_finite() {
    let encoder = formula_encoder(&TINY);
    let (pixels, mut gradient) = (pixels(&TINY, 2), values(1001, 2 * 16));
    let gradients = encoder
        .forward_train(&pixels)
        .unwrap()
        .backward(&gradient)
        .unwrap();
    let squares = |array: &NamedArray| {
        array
            .data
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
    };
    let wanted = gradients
        .to_arrays()
        .unwrap()
        .iter()
        .map(squares)
        .sum::<f64>()
        .sqrt();
    assert!((f64::from(gradients.norm().unwrap()) / wanted - 1.0).abs() < 1e-6);
    gradient[3] = f32::NAN;
    let gradients = encoder
        .forward_train(&pixels)
        .unwrap()
        .backward(&gradient)
        .unwrap();
    assert!(!gradients.norm().unwrap().is_finite());
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
}

#[test]
fn training_does_not_reach_an_encoder_made_from_the_same_arrays() {
    let mut training = formula_encoder(&TINY);
    let arrays = training.to_arrays().unwrap();
    let serving = Encoder::from_arrays(&TINY, &arrays, &cpu()).unwrap();
    let before = serving.forward(&pixels(&TINY, 1)).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Sgd), &training).unwrap();
    train(&mut training, &mut optimizer, 0.1, 1);
    assert_ne!(training.to_arrays().unwrap(), arrays);
    assert_eq!(serving.to_arrays().unwrap(), arrays);
    assert_eq!(serving.forward(&pixels(&TINY, 1)).unwrap(), before);
}

#[test]
fn a_step_is_seen_by_the_next_forward_pass() {
    let mut encoder = formula_encoder(&TINY);
    encoder.forward(&pixels(&TINY, 1)).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Adamw), &encoder).unwrap();
    train(&mut encoder, &mut optimizer, 0.01, 2);
    let fresh = Encoder::from_arrays(&TINY, &encoder.to_arrays().unwrap(), &cpu()).unwrap();
    let pixels = pixels(&TINY, 1);
    assert_eq!(
        encoder.forward(&pixels).unwrap(),
        fresh.forward(&pixels).unwrap()
    );
}

#[test]
fn a_resumed_optimizer_goes_on_as_if_nothing_had_happened() {
    for kind in [
        OptimizerKind::Adamw,
        OptimizerKind::Adam,
        OptimizerKind::Sgd,
    ] {
        let config = optimizer_config(kind);
        let mut encoder = formula_encoder(&TINY);
        let mut optimizer = Optimizer::new(&config, &encoder).unwrap();
        train(&mut encoder, &mut optimizer, 0.01, 2);
        let mut again = Encoder::from_arrays(&TINY, &encoder.to_arrays().unwrap(), &cpu()).unwrap();
        let mut resumed = Optimizer::new(&config, &again).unwrap();
        resumed
            .load_arrays(&optimizer.to_arrays().unwrap())
            .unwrap();
        train(&mut encoder, &mut optimizer, 0.01, 2);
        train(&mut again, &mut resumed, 0.01, 2);
        assert!(
            encoder.to_arrays().unwrap() == again.to_arrays().unwrap(),
            "{kind:?}"
        );
        assert!(
            optimizer.to_arrays().unwrap() == resumed.to_arrays().unwrap(),
            "{kind:?}"
        );
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
fn weights_in_16_bits_keep_vectors_and_their_neighbours() {
    // Tiled, direct and fully connected layers; maps of 8 to 1 pixels.
    let exact = formula_encoder(&TINY);
    let rounded = formula_encoder(&TINY).with_precision(Precision::Bf16);
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

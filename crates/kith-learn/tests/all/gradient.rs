//! The exact global loss of a small set of views, its gradient, and what a step's estimate of it is worth, all with a tiny encoder.

use kith_learn::{FixedViews, GlobalLoss};
use kith_mcmc::{GroupKey, ImageKey, PairGraph, PairKey, Side, SlotKey};
use kith_nn::{Device, NamedArray, Towers};
use kith_seed::mix;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::tiny::{PIXELS, TINY, view};

const BETA: f32 = 5.0;

/// Pairs 0 to 7: image 0 is in three of them, pair 2 is two views of one image, pairs 5 and 6 share a group.
fn uneven() -> (PairGraph, Vec<PairKey>) {
    let mut graph = PairGraph::default();
    for pair in 0..8 {
        let images = match pair {
            1 | 4 => [0, 2 * pair + 1],
            2 => [4, 4],
            _ => [2 * pair, 2 * pair + 1],
        };
        let entry = kith_mcmc::PairEntry::new(
            images.map(ImageKey),
            [5, 6].contains(&pair).then_some(GroupKey(1)),
        );
        graph.insert(PairKey(pair), entry);
    }
    (graph, (0..8).map(PairKey).collect())
}

/// A view of each slot of the pairs.
fn pixels(graph: &PairGraph, pairs: &[PairKey]) -> Vec<f32> {
    let slots = pairs
        .iter()
        .flat_map(|pair| [Side::Anchor, Side::Positive].map(|side| SlotKey::new(*pair, side)));
    slots
        .flat_map(|slot| {
            let image = graph.image(slot).expect("all pairs are there");
            view(image, mix(&[1, u64::from(slot.packed())]))
        })
        .collect()
}

/// A tiny encoder off its starting point, where branches of weight zero leave many ReLUs exactly on their kink.
fn encoder() -> Towers {
    let device = Device::cpu();
    let fresh = Towers::fresh(&TINY, 1, &device).expect("a tiny encoder");
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut noise = fresh.to_arrays().expect("weights");
    for value in noise.iter_mut().flat_map(|array| &mut array.data) {
        *value = random.random_range(-0.03..0.03);
    }
    moved(&fresh, &noise, 1.0)
}

/// The definition, image by image: the sum over all images that are no known positives, each by the mean over its views.
fn by_definition(graph: &PairGraph, pixels: &[f32], encoder: &Towers) -> f64 {
    let vectors = encoder.get(Side::Anchor).forward(pixels);
    let vectors = vectors.expect("it encodes").embedding;
    let slots = pixels.len() / PIXELS;
    let image = |slot: usize| graph.image(SlotKey::from_packed(slot as u32));
    let score = |a: usize, b: usize| {
        let row = |i: usize| &vectors.data[i * vectors.dim..(i + 1) * vectors.dim];
        f64::from(BETA) * f64::from(row(a).iter().zip(row(b)).map(|(x, y)| x * y).sum::<f32>())
    };
    let term = |anchor: usize| {
        let positives = graph.positives(SlotKey::from_packed(anchor as u32));
        let weight = |of: u32| {
            let views: Vec<usize> = (0..slots)
                .filter(|slot| image(*slot) == Some(ImageKey(of)))
                .filter(|slot| !positives.excludes(SlotKey::from_packed(*slot as u32)))
                .collect();
            let sum: f64 = views.iter().map(|slot| score(anchor, *slot).exp()).sum();
            sum / views.len().max(1) as f64
        };
        (0..slots as u32).map(weight).sum::<f64>().ln() - score(anchor, anchor ^ 1)
    };
    (0..slots).map(term).sum::<f64>() / slots as f64
}

#[test]
fn the_global_loss_is_the_sum_over_all_images_each_counted_once() {
    let (graph, pairs) = uneven();
    let (pixels, encoder) = (pixels(&graph, &pairs), encoder());
    let views = FixedViews {
        pairs: &pairs,
        pixels: &pixels,
    };
    let expected = by_definition(&graph, &pixels, &encoder);
    for tile in [1, 5, 16, 1000] {
        let loss = GlobalLoss::new(&graph, views, BETA, tile).expect("the views fit");
        let value = loss.value(&encoder).expect("it encodes");
        // Scores up to 5 in f32, summed in another order.
        assert!(
            (value - expected).abs() < 1e-5,
            "{tile}: {value} {expected}"
        );
    }
}

/// The encoder with all weights moved by `step` along `direction`.
fn moved(encoder: &Towers, direction: &[NamedArray], step: f32) -> Towers {
    let mut weights = encoder.to_arrays().expect("weights");
    for (weight, direction) in weights.iter_mut().zip(direction) {
        weight
            .data
            .iter_mut()
            .zip(&direction.data)
            .for_each(|(weight, by)| *weight += step * by);
    }
    let device = Device::cpu();
    Towers::from_arrays(&TINY, &weights, &device).expect("the same shapes")
}

#[test]
fn the_global_gradient_is_the_slope_of_the_global_loss_in_any_tiles() {
    let (graph, pairs) = uneven();
    let (pixels, encoder) = (pixels(&graph, &pairs), encoder());
    let views = FixedViews {
        pairs: &pairs,
        pixels: &pixels,
    };
    let whole = GlobalLoss::new(&graph, views, BETA, 16).expect("the views fit");
    let (value, gradients) = whole.gradient(&encoder).expect("it encodes");
    assert_eq!(value, whole.value(&encoder).expect("it encodes"));
    let flat = gradients.to_flat().expect("values");
    let norm = flat
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();

    let direction = gradients.to_arrays().expect("arrays");
    let step = (1e-3 / norm) as f32;
    let at = |step: f32| {
        whole
            .value(&moved(&encoder, &direction, step))
            .expect("it encodes")
    };
    let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
    // A central difference over 2/1000: ReLUs that flip, and losses that are right to 10⁻⁷.
    assert!(
        (slope / norm.powi(2) - 1.0).abs() < 0.01,
        "{slope} {}",
        norm.powi(2)
    );

    let tiled = GlobalLoss::new(&graph, views, BETA, 3).expect("the views fit");
    let tiled = tiled.gradient(&encoder).expect("it encodes").1.to_flat();
    let error: f64 = tiled
        .expect("values")
        .iter()
        .zip(&flat)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        .sqrt();
    // Another order of f32 sums.
    assert!(error < 1e-5 * norm, "{error} {norm}");
}

#[test]
fn views_that_do_not_fit_the_pairs_or_the_encoder_are_an_error() {
    let (graph, pairs) = uneven();
    let pixels = pixels(&graph, &pairs);
    let of = |pairs: &[PairKey], pixels: &[f32]| {
        GlobalLoss::new(&graph, FixedViews { pairs, pixels }, BETA, 4)
            .and_then(|loss| loss.value(&encoder()))
            .is_err()
    };
    assert!(of(&[], &[]));
    assert!(of(&pairs, &pixels[1..]));
    assert!(of(&pairs, &pixels[..pixels.len() - 16 * PIXELS / 2]));
}

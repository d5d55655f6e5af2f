//! Pixels that are uploaded during the step before.

use std::{collections::HashMap, sync::Mutex};

use kith_learn::{Batch, CarriedViews, Learner, Scores, SharedView, StepImages, Unreadable};
use kith_mcmc::{Estimator, ImageKey};
use kith_nn::{Compute, Device, EncoderConfig, Images};

use super::{FULL, both, gpu, pixels};
use crate::tiny::{TINY, batch, config, graph, learner_on, view};

/// Views that are made once, as a loader makes them.
#[derive(Default)]
struct Loaded(Mutex<HashMap<(u64, ImageKey), SharedView>>);

impl CarriedViews for Loaded {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let mut made = self.0.lock().expect("no test thread panicked");
        let mut one = |image: &ImageKey| {
            let view = made
                .entry((step, *image))
                .or_insert_with(|| view(*image, step).into());
            Some(view.clone())
        };
        Ok(images.iter().map(&mut one).collect())
    }
}

/// The weights after a step on each of `batches`, and in which steps the images had been uploaded. `next` tells which batch follows.
fn train(
    device: &Device,
    batches: &[Batch],
    next: impl Fn(usize) -> Option<usize>,
) -> (Vec<Vec<f32>>, Vec<bool>) {
    let mut learner = learner_on(device, config(Estimator::Walk, Scores::Refreshed));
    let (graph, views) = (graph(24), Loaded::default());
    let carried = &views;
    let mut early = Vec::new();
    for (number, now) in batches.iter().enumerate() {
        let images = |batch| StepImages { batch, carried };
        let next = next(number).map(|next| images(&batches[next]));
        let report = learner.step_ahead((images(now), next), &graph, 1e-3);
        early.push(report.expect("a step").uploaded_ahead);
    }
    (weights(&learner), early)
}

fn weights(learner: &Learner) -> Vec<Vec<f32>> {
    let arrays = learner.towers.to_arrays().expect("its weights");
    arrays.into_iter().map(|array| array.data).collect()
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_uploads_ahead_and_computes_the_same() {
    let graph = graph(24);
    // Some pairs come twice in a row, so that their chains have just moved.
    let batches: Vec<Batch> = (0..8_u64)
        .map(|step| {
            let pairs: Vec<u32> = (0..8).map(|pair| (5 * step as u32 + pair) % 24).collect();
            batch(&graph, step, &pairs)
        })
        .collect();
    for compute in [Compute::F32, Compute::Bf16] {
        let device = gpu(compute);
        let (wanted, never) = train(&device, &batches, |_| None);
        assert_eq!(never, [false; 8]);
        let follow = |number| (number < 7).then_some(number + 1);
        let (found, early) = train(&device, &batches, follow);
        assert_eq!(early[1..], [true; 7], "{compute:?}");
        assert!(found == wanted, "{compute:?}");
        // Another batch follows than was said.
        let (found, early) = train(&device, &batches, |number| Some((number + 2) % 8));
        assert_eq!(early, [false; 8], "{compute:?}");
        assert!(found == wanted, "{compute:?}");
    }
    let (_, never) = train(&Device::cpu(), &batches[..2], |_| Some(1));
    assert_eq!(never, [false; 2]);
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_keeps_one_upload_at_a_time() {
    for (compute, config) in [(Compute::F32, &TINY), (Compute::Bf16, &FULL)] {
        let device = gpu(compute);
        let [_, encoder] = both(config, &device);
        // The second pass of a size is captured, and a larger one needs a larger buffer.
        for images in [3, 3, 3, 40, 40, 40, 5] {
            let mut pixels = pixels(config, images);
            pixels.rotate_left(images * 311);
            let (first, second) = pixels.split_at(pixels.len() / 3);
            let parts = [first, second];
            let all = of_side(config, &parts);
            let uploaded = encoder.upload_ahead(all).expect("whole images");
            assert!(uploaded.is_some(), "{images}");
            let another = encoder.upload_ahead(all).expect("whole images");
            assert!(another.is_none(), "{images}");
            let embedding = |uploaded| {
                let tape = encoder.forward_train_uploaded(all, uploaded);
                tape.expect("a forward pass").embedding().clone()
            };
            let (found, wanted) = (embedding(uploaded), embedding(None));
            assert!(found == wanted, "{compute:?}, {images}");
        }
        // Of another number of images, and never used.
        let pixels = pixels(config, 6);
        let (all, half) = ([&pixels[..]], [&pixels[..pixels.len() / 2]]);
        let all = of_side(config, &all);
        let uploaded = encoder.upload_ahead(of_side(config, &half));
        let uploaded = uploaded.expect("whole images");
        let tape = encoder.forward_train_uploaded(all, uploaded);
        let wanted = encoder.forward_train(&pixels).expect("a forward pass");
        assert!(tape.expect("a forward pass").embedding() == wanted.embedding());
        drop(encoder.upload_ahead(all).expect("whole images"));
        assert!(encoder.upload_ahead(all).expect("images").is_some());
    }
}

fn of_side<'a>(config: &EncoderConfig, parts: &'a [&'a [f32]]) -> Images<'a> {
    let side = config.side;
    Images { side, parts }
}

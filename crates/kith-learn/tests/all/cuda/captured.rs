//! Passes captured as CUDA graphs, compared with the same passes queued operation by operation.

use std::{sync::mpsc, thread, time::Duration};

use kith_nn::{Compute, Device, Encoder, Gradients, Optimizer};

use super::{FULL, SGD, both, cosines, gpu, gradients, pixels, values};
use crate::tiny::TINY;

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_replays_captured_passes_on_other_images() {
    for compute in [Compute::F32, Compute::Bf16] {
        let device = gpu(compute);
        for (config, sizes) in [(&FULL, [3, 1, 3]), (&TINY, [40, 7, 40])] {
            let encoder = both(config, &device).into_iter().nth(1).expect("two");
            for images in sizes {
                for shift in 0..4 {
                    let mut pixels = pixels(config, images);
                    pixels.rotate_left(shift * 311);
                    // The first pass of a size is not captured.
                    let [_, plain] = both(config, &device);
                    let (ours, theirs) = (encoder.forward(&pixels), plain.forward(&pixels));
                    assert_eq!(plain.captured_graphs(), [0, 0]);
                    // The same operations in the same order.
                    assert_eq!(
                        ours.expect("a pass"),
                        theirs.expect("a pass"),
                        "{compute:?}, {images}, {shift}"
                    );
                }
            }
            assert_eq!(encoder.captured_graphs(), [2, 0], "{compute:?}");
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_computes_large_batches_in_parts() {
    let device = gpu(Compute::Bf16);
    let [_, encoder] = both(&TINY, &device);
    // Two parts of 2,048 and some images more.
    let mut pixels = pixels(&TINY, 2 * 2048 + 7);
    let middle = pixels.len() / 3;
    for shift in [0, 311] {
        pixels.rotate_left(shift);
        let [_, plain] = both(&TINY, &device);
        let wanted = plain.forward(&pixels).expect("a pass");
        for _ in 0..2 {
            let (first, second) = pixels.split_at(middle);
            let found = encoder.forward_all(&[first, second]).expect("a pass");
            assert!(found == wanted, "{shift}");
        }
    }
    // A part by itself, both that take turns, and the rest.
    assert_eq!(encoder.captured_graphs(), [3, 0]);
}

/// The embeddings of some images and the gradients of a loss on them.
fn pass(encoder: &Encoder, images: usize, shift: usize) -> (Vec<f32>, Gradients) {
    let mut pixels = pixels(encoder.config(), images);
    pixels.rotate_left(shift * 311);
    let mut slopes = values(images * encoder.config().dim);
    let by = shift * 17 % slopes.len();
    slopes.rotate_left(by);
    let tape = encoder.forward_train(&pixels).expect("a forward pass");
    let embedding = tape.embedding().data.clone();
    (embedding, tape.backward(&slopes).expect("a backward pass"))
}

/// The same from an encoder with the same weights that has captured nothing.
fn plain(encoder: &Encoder, device: &Device, images: usize, shift: usize) -> (Vec<f32>, Vec<f32>) {
    let arrays = encoder.to_arrays().expect("its weights");
    let plain = Encoder::from_arrays(encoder.config(), &arrays, device).expect("the same shape");
    let (embedding, gradients) = pass(&plain, images, shift);
    assert_eq!(plain.captured_graphs(), [0, 0]);
    (embedding, gradients.to_flat().expect("values"))
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_replays_captured_steps_on_weights_that_change() {
    for compute in [Compute::F32, Compute::Bf16] {
        let device = gpu(compute);
        for (config, sizes) in [(&FULL, [5, 30, 33]), (&TINY, [40, 64, 7])] {
            let [_, mut encoder] = both(config, &device);
            let mut optimizer = Optimizer::new(&SGD, &encoder).expect("moments");
            for shift in 0..9 {
                let images = sizes[shift % 3];
                let wanted = plain(&encoder, &device, images, shift);
                let (embedding, mut gradients) = pass(&encoder, images, shift);
                let flat = gradients.to_flat().expect("values");
                // The same operations in the same order.
                assert!(embedding == wanted.0, "{compute:?}, {images}, {shift}");
                assert!(flat == wanted.1, "{compute:?}, {images}, {shift}");
                let norm = gradients.norm().expect("a norm");
                let step = optimizer.step(&mut encoder, &mut gradients, norm, 0.01);
                step.expect("a step");
            }
            // Each number of images is counted up to a multiple of 32.
            assert_eq!(encoder.captured_graphs(), [0, 2], "{compute:?}");
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_overwrites_no_gradients_that_are_in_use() {
    let device = gpu(Compute::F32);
    let [_, encoder] = both(&TINY, &device);
    let passes: Vec<_> = (0..4).map(|shift| pass(&encoder, 8, shift).1).collect();
    for (shift, gradients) in passes.iter().enumerate() {
        let (_, wanted) = plain(&encoder, &device, 8, shift);
        assert!(gradients.to_flat().expect("values") == wanted, "{shift}");
    }
    assert_eq!(encoder.captured_graphs(), [0, 1]);
    drop(passes);
    let (_, wanted) = plain(&encoder, &device, 8, 5);
    let (_, gradients) = pass(&encoder, 8, 5);
    assert!(gradients.to_flat().expect("values") == wanted);
}

#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_drops_captured_graphs_when_weights_change() {
    let device = gpu(Compute::F32);
    let [mut cpu, mut gpu] = both(&TINY, &device);
    for round in 0..3 {
        for encoder in [&mut cpu, &mut gpu] {
            let mut optimizer = Optimizer::new(&SGD, encoder).expect("moments");
            let mut gradients = gradients(encoder, 8);
            let norm = gradients.norm().expect("a norm");
            let step = optimizer.step(encoder, &mut gradients, norm, 0.01);
            step.expect("a step");
        }
        assert_eq!(gpu.captured_graphs()[0], 0);
        for _ in 0..3 {
            let [ours, theirs] = [&gpu, &cpu].map(|encoder| {
                let features = encoder.forward(&pixels(&TINY, 5));
                features.expect("a pass").embedding.data
            });
            let worst = cosines(&ours, &theirs, TINY.dim)
                .into_iter()
                .fold(1.0, f64::min);
            assert!(worst >= 0.9999, "round {round}: {worst}");
        }
        assert_eq!(gpu.captured_graphs()[0], 1);
    }
}

/// A thread that waits for its pool takes up other work: it must hold nothing then that this work waits for.
#[test]
#[ignore = "needs an NVIDIA GPU and --features cuda"]
fn cuda_passes_of_one_pool_do_not_wait_for_each_other() {
    let device = gpu(Compute::F32);
    let (done, waiting) = mpsc::channel();
    // Not joined: if it waits for itself, it does so for ever.
    thread::spawn(move || {
        let encoders: Vec<Encoder> = (0..4)
            .map(|seed| Encoder::fresh(&TINY, seed, &device).expect("an encoder"))
            .collect();
        // Enough values that the pool shares in copying them.
        let pixels = pixels(&TINY, 256);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let pool = pool.expect("a pool");
        let passes = |encoder: &Encoder| -> Vec<_> {
            let pass = || encoder.forward(&pixels).expect("a pass").embedding;
            (0..40).map(|_| pool.install(pass)).collect()
        };
        // Callers from outside: what they want is what a waiting thread of the pool finds.
        let alike = thread::scope(|scope| {
            let callers = encoders
                .iter()
                .map(|encoder| scope.spawn(|| passes(encoder)));
            let callers: Vec<_> = callers.collect();
            callers.into_iter().all(|caller| {
                let all = caller.join().expect("no panic");
                all.iter().all(|one| *one == all[0])
            })
        });
        // The test may have given up.
        let _ = done.send(alike);
    });
    // Some seconds where nothing hangs.
    let alike = waiting.recv_timeout(Duration::from_secs(120));
    assert_eq!(alike, Ok(true), "passes wait for each other, or differ");
}

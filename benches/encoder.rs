//! How fast the encoder is on this machine's CPU: images per second, forward and in training.
//!
//! `cargo bench --bench encoder`, or with arguments `forward` / `train` for one of the two. Figures are the best of
//! several runs: other programs only ever make them worse. The processor time of all threads (Linux only) hardly
//! depends on them. The number of threads is rayon's (`RAYON_NUM_THREADS`).
#![allow(clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use kith::nn::{
    Device, Encoder, EncoderConfig, NnError, Optimizer, OptimizerConfig, OptimizerKind,
};

/// Time spent on each figure.
const BUDGET: Duration = Duration::from_secs(4);

fn main() -> Result<(), NnError> {
    let wanted = |what: &str| {
        let asked: Vec<String> = std::env::args()
            .skip(1)
            .filter(|a| !a.starts_with("--"))
            .collect();
        asked.is_empty() || asked.iter().any(|a| a == what)
    };
    for side in [64, 96] {
        let encoder = encoder(side)?;
        for batch in [1, 8, 32].into_iter().filter(|_| wanted("forward")) {
            let pixels = pixels(side, batch);
            let (best, cpu) = best_of(|| encoder.forward(&pixels).map(drop))?;
            println!(
                "forward  side {side} batch {batch:2}: {:7.1} images/s, {:.2} ms of processor time an image",
                per_second(batch, best),
                cpu.as_secs_f64() * 1e3 / batch as f64
            );
        }
        if wanted("train") {
            train(side, encoder)?;
        }
    }
    Ok(())
}

fn train(side: usize, mut encoder: Encoder) -> Result<(), NnError> {
    let batch = 64;
    let pixels = pixels(side, batch);
    let config = OptimizerConfig {
        kind: OptimizerKind::Adamw,
        weight_decay: 0.01,
        momentum: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        clip_norm: 1.0,
    };
    let mut optimizer = Optimizer::new(&config, &encoder)?;
    let mut parts = [Duration::MAX; 3];
    let (best, cpu) = best_of(|| {
        let start = Instant::now();
        let tape = encoder.forward_train(&pixels)?;
        let forward = start.elapsed();
        let gradient = tape.embedding().data.clone();
        let gradients = tape.backward(&gradient.iter().map(|v| v.sin()).collect::<Vec<_>>())?;
        let backward = start.elapsed();
        let norm = gradients.norm()?;
        optimizer.step(&mut encoder, &gradients, norm, 1e-4)?;
        let now = [forward, backward - forward, start.elapsed() - backward];
        parts
            .iter_mut()
            .zip(now)
            .for_each(|(best, now)| *best = now.min(*best));
        Ok(())
    })?;
    let [forward, backward, step] = parts.map(|part| part.as_secs_f64() * 1e3);
    println!(
        "training side {side} batch {batch}: {:7.1} images/s, {:.0} ms of processor time a step ({:.0} ms: forward {forward:.0}, backward {backward:.0}, step {step:.0})",
        per_second(batch, best),
        cpu.as_secs_f64() * 1e3,
        best.as_secs_f64() * 1e3
    );
    Ok(())
}

fn encoder(side: usize) -> Result<Encoder, NnError> {
    Encoder::fresh(
        &EncoderConfig {
            width: 64,
            side,
            dim: 128,
        },
        1,
        &Device::open("cpu")?,
    )
}

fn pixels(side: usize, batch: usize) -> Vec<f32> {
    (0..batch * side * side * 3)
        .map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0)
        .collect()
}

/// The least wall time and the least processor time of a run.
fn best_of(mut work: impl FnMut() -> Result<(), NnError>) -> Result<(Duration, Duration), NnError> {
    let begun = Instant::now();
    let mut best = (Duration::MAX, Duration::MAX);
    while begun.elapsed() < BUDGET {
        let (start, cpu) = (Instant::now(), cpu_time());
        work()?;
        best = (best.0.min(start.elapsed()), best.1.min(cpu_time() - cpu));
    }
    Ok(best)
}

/// Processor time of all threads so far; zero where the system does not tell.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let spent =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    let nanos = spent.filter_map(|text| {
        text.split(' ')
            .next()
            .and_then(|first| first.parse::<u64>().ok())
    });
    Duration::from_nanos(nanos.sum())
}

fn per_second(images: usize, time: Duration) -> f64 {
    images as f64 / time.as_secs_f64()
}

//! Which images share a pass, in which order, and what becomes of those whose pass fails.

use tokio::sync::Semaphore;

use super::*;
use crate::{
    serve::{
        ModelInfo,
        loaded::{LoadedTower, Network},
    },
    telemetry::Metrics,
    types::CheckpointId,
};
use kith_mcmc::Side;
use kith_nn::{NnError, Vectors};

/// Answers each image with its one pixel; panics or fails on the values of [`PANICS`] and [`FAILS`].
struct Echo;
const PANICS: f32 = -1.0;
const FAILS: f32 = -2.0;

impl Network for Echo {
    fn forward(&self, images: &[&[f32]]) -> Result<Features, NnError> {
        let pixels = images.concat();
        assert!(!pixels.contains(&PANICS), "asked to panic");
        if pixels.contains(&FAILS) {
            return Err(NnError::Device("asked to fail".to_owned()));
        }
        let vectors = Vectors {
            dim: 1,
            data: pixels,
        };
        Ok(Features {
            embedding: vectors.clone(),
            hidden: vectors.clone(),
            places: [vectors.clone(), vectors],
        })
    }
}

type Answer = oneshot::Receiver<Result<Row, ServeError>>;

fn encoder() -> Arc<LoadedTower> {
    let info = ModelInfo {
        id: CheckpointId::now(),
        step: 0,
        dim: 1,
        hidden: 1,
        side: 1,
        towers: 1,
        range: 1.0,
    };
    Arc::new(LoadedTower {
        info,
        side: Side::Anchor,
        network: Box::new(Echo),
        _in_use: None,
    })
}

fn job(encoder: &Arc<LoadedTower>, pixel: f32, places: &Arc<Semaphore>) -> (Job, Answer) {
    let (reply, answer) = oneshot::channel();
    let permit = places.clone().try_acquire_owned().unwrap();
    let job = Job {
        origin: Origin {
            request: 0,
            small: false,
        },
        encoder: encoder.clone(),
        pixels: vec![pixel],
        reply,
        permit,
        came: Instant::now(),
        waiting: None,
        request: Span::none(),
    };
    (job, answer)
}

const TWO: PassSizes = PassSizes {
    usual: 2,
    small_expected: 2,
};

fn push(queue: &Queue, jobs: impl IntoIterator<Item = Job>) {
    let mut state = queue.lock();
    jobs.into_iter()
        .for_each(|job| state.waiting.push(job.origin, job));
}

/// All passes to come.
fn drain(queue: &Queue, sizes: PassSizes) -> Vec<Vec<f32>> {
    queue.close();
    let passes = std::iter::from_fn(|| queue.take(sizes));
    passes.map(|batch| pixels(&batch)).collect()
}

fn pixels(batch: &[Job]) -> Vec<f32> {
    batch.iter().map(|job| job.pixels[0]).collect()
}

#[test]
fn a_batch_takes_the_oldest_that_share_an_encoder_and_keeps_the_order_of_the_rest() {
    let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(9)));
    let (a, b) = (encoder(), encoder());
    let (mut jobs, _answers): (Vec<_>, Vec<_>) =
        [(&a, 0.0), (&b, 1.0), (&a, 2.0), (&b, 3.0), (&a, 4.0)]
            .map(|(encoder, pixel)| job(encoder, pixel, &places))
            .into_iter()
            .unzip();
    // All images of a request want one encoder.
    for job in &mut jobs {
        job.origin.request = u64::from(Arc::ptr_eq(&job.encoder, &b));
    }
    push(&queue, jobs);
    assert_eq!(
        drain(&queue, TWO),
        [vec![0.0, 2.0], vec![1.0, 3.0], vec![4.0]]
    );
}

#[test]
fn a_single_image_is_in_the_next_pass_whatever_large_requests_wait_before_it() {
    let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(999)));
    let network = encoder();
    let mut answers = Vec::new();
    let mut large = |request: u64| {
        let (mut job, answer) = job(&network, request as f32, &places);
        job.origin.request = request;
        answers.push(answer);
        job
    };
    let jobs: Vec<Job> = [1, 2]
        .into_iter()
        .flat_map(|request| [(); 8].map(|()| request))
        .map(&mut large)
        .collect();
    push(&queue, jobs);
    let (mut single, _answer) = job(&network, 9.0, &places);
    single.origin = Origin {
        request: 3,
        small: true,
    };
    let sizes = PassSizes {
        usual: 8,
        small_expected: 2,
    };
    assert_eq!(pixels(&queue.take(sizes).unwrap()), [1.0, 2.0].repeat(4));
    push(&queue, [single]);
    assert_eq!(pixels(&queue.take(sizes).unwrap()), [9.0, 1.0]);
    assert_eq!(queue.take(sizes).unwrap().len(), 2, "another is expected");
    for _ in 0..SMALL_EXPECTED {
        push(&queue, (0..2).map(|_| large(1)).collect::<Vec<_>>());
        queue.take(sizes).unwrap();
    }
    push(&queue, (0..8).map(|_| large(1)).collect::<Vec<_>>());
    let none_expected = queue.take(sizes).unwrap();
    assert_eq!(none_expected.len(), 8);
}

#[test]
fn a_cancelled_image_leaves_the_queue_and_frees_its_place() {
    let (queue, places) = (Queue::default(), Arc::new(Semaphore::new(2)));
    let network = encoder();
    let (gone, answer) = job(&network, 0.0, &places);
    let (kept, _answer) = job(&network, 1.0, &places);
    push(&queue, [gone, kept]);
    drop(answer);
    let batch = queue.take(TWO).unwrap();
    assert_eq!(pixels(&batch), [1.0]);
    assert_eq!(places.available_permits(), 1);
}

#[test]
fn a_vector_that_is_not_finite_is_no_answer_and_its_companions_are() {
    let places = Arc::new(Semaphore::new(4));
    let network = encoder();
    for bad in [f32::NAN, f32::INFINITY] {
        let (with, mut companion) = job(&network, 7.0, &places);
        let (bad, mut own) = job(&network, bad, &places);
        encode(
            vec![with, bad],
            &Instruments::new(&Metrics::new()),
            &WaitEstimate::default(),
        );
        assert_eq!(companion.try_recv().unwrap().unwrap().embedding, [7.0]);
        let refused = own.try_recv().unwrap();
        assert!(matches!(refused, Err(ServeError::NotFinite { id, .. }) if id == network.info.id));
    }
}

#[test]
fn a_panic_or_an_error_fails_its_own_batch_only() {
    let places = Arc::new(Semaphore::new(4));
    let network = encoder();
    for bad in [PANICS, FAILS] {
        let (with, companion) = job(&network, 7.0, &places);
        let (bad, own) = job(&network, bad, &places);
        encode(
            vec![with, bad],
            &Instruments::new(&Metrics::new()),
            &WaitEstimate::default(),
        );
        for mut answer in [companion, own] {
            assert!(matches!(
                answer.try_recv().unwrap(),
                Err(ServeError::Encode(_))
            ));
        }
    }
    let (good, mut answer) = job(&network, 7.0, &places);
    encode(
        vec![good],
        &Instruments::new(&Metrics::new()),
        &WaitEstimate::default(),
    );
    assert_eq!(answer.try_recv().unwrap().unwrap().embedding, [7.0]);
    assert_eq!(places.available_permits(), 4, "every place is free again");
}

#[test]
fn stopping_answers_what_waits_and_refuses_what_comes_later() {
    let places = Arc::new(Semaphore::new(9));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let counts = (Instruments::new(&Metrics::new()), WaitEstimate::default());
    let batcher = Batcher::start(Arc::new(pool), TWO, counts).unwrap();
    let network = encoder();
    let mut answers = Vec::new();
    for pixel in 0..5 {
        let (job, answer) = job(&network, pixel as f32, &places);
        batcher.push(job);
        answers.push(answer);
    }
    batcher.stop();
    for (pixel, mut answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.try_recv().unwrap().unwrap().hidden, [pixel as f32]);
    }
    let (late, mut answer) = job(&network, 0.0, &places);
    batcher.push(late);
    assert!(matches!(
        answer.try_recv().unwrap(),
        Err(ServeError::Stopping)
    ));
}

//! The evaluation of an encoder on image files in memory.

use std::{cell::Cell, io::Cursor};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use kith_eval::{
    ClassificationConfig, ClassificationSet, EvalError, EvaluationSet, LabelledImages,
};
use kith_mcmc::Side;
use kith_nn::{Device, EncoderConfig, Towers};
use kith_pixels::Limits;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 16,
    decode_memory_mb: 64,
};

fn encoder() -> Towers {
    encoders(1)
}

fn encoders(towers: usize) -> Towers {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 16,
        towers,
    };
    Towers::fresh(&config, 1, &Device::cpu()).unwrap()
}

/// A pattern that differs with `number`.
fn png(number: u32) -> Bytes {
    let image = RgbImage::from_fn(40, 40, |x, y| {
        let cell = (number + 1) * (31 + (x / 10) * 7 + (y / 10) * 13);
        Rgb([cell * 37 % 250, cell * 59 % 250, cell * 83 % 250].map(|value| value as u8))
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

/// The same images on both sides: each query has an exact match.
fn same_on_both_sides(images: u32) -> EvaluationSet {
    let files: Vec<Bytes> = (0..images).map(png).collect();
    let labels: Vec<u64> = (0..u64::from(images)).collect();
    EvaluationSet {
        anchors: files.clone(),
        positives: files,
        anchor_labels: labels.clone(),
        positive_labels: labels,
        questions: "q".to_owned(),
    }
}

#[test]
fn exact_matches_rank_first_and_the_score_names_its_questions() {
    let set = same_on_both_sides(5);
    let report = set.evaluate(&encoder(), &LIMITS, &|| true);
    let report = report.unwrap().unwrap();
    assert_eq!(report.evaluation.pairs, 5);
    assert_eq!(report.evaluation.recall_at_1(), 1.0);
    assert!(report.evaluation.geometry.alignment < 1e-6);
    assert_eq!(report.score.questions, "q-32");
    assert_eq!(
        (report.score.found, report.score.asked),
        (vec![2; 5], vec![2; 5])
    );
}

#[test]
fn a_broken_file_and_a_label_without_partner_are_no_queries() {
    let mut set = same_on_both_sides(5);
    set.anchors[1] = Bytes::from_static(b"no image");
    set.positive_labels[2] = 99;
    let report = set.evaluate(&encoder(), &LIMITS, &|| true);
    let report = report.unwrap().unwrap();
    // Anchors 0, 3 and 4 have a positive.
    assert_eq!(report.evaluation.pairs, 3);
    assert_eq!(report.score.asked, [2; 3]);
}

#[test]
fn an_evaluation_ends_when_it_is_told_to() {
    let batches = Cell::new(0);
    let keep_going = || batches.replace(batches.get() + 1) < 2;
    let set = same_on_both_sides(40);
    let report = set.evaluate(&encoder(), &LIMITS, &keep_going).unwrap();
    assert_eq!((report, batches.get()), (None, 3));
}

#[test]
fn embeddings_that_are_not_finite_are_an_error() {
    let encoder = encoder();
    let mut arrays = encoder.to_arrays().unwrap();
    for array in &mut arrays {
        array.data.fill(f32::NAN);
    }
    let broken = Towers::from_arrays(encoder.config(), &arrays, &Device::cpu()).unwrap();
    let report = same_on_both_sides(2).evaluate(&broken, &LIMITS, &|| true);
    assert!(matches!(report, Err(EvalError::NotFinite)));
}

#[test]
fn with_two_towers_positives_go_through_their_own_and_anchors_are_the_queries() {
    let towers = encoders(2);
    let set = same_on_both_sides(5);
    let report = |towers: &Towers| {
        let report = set.evaluate(towers, &LIMITS, &|| true);
        report.unwrap().unwrap()
    };
    let equal = report(&towers);
    assert_eq!(equal.score.asked, [1; 5], "one direction");
    assert!(equal.evaluation.geometry.alignment < 1e-6);

    // The positives' encoder maps all images to one point.
    let mut arrays = towers.to_arrays().unwrap();
    let own = arrays.iter_mut();
    for array in own.filter(|array| array.name.starts_with("positive.")) {
        let last_bias = array.shape == [16];
        array.data.fill(f32::from(u8::from(last_bias)));
    }
    let half = Towers::from_arrays(towers.config(), &arrays, &Device::cpu()).unwrap();
    let half = report(&half);
    assert!(half.evaluation.geometry.spread < 1e-3, "{half:?}");
    assert!(half.evaluation.geometry.mean_cosine > 0.999, "{half:?}");
    assert_eq!(half.score.found, [0; 5]);
}

/// A picture of one colour, a little different with `number`.
fn plain(colour: [u8; 3], number: u8) -> Bytes {
    let image = RgbImage::from_pixel(40, 40, Rgb(colour.map(|value| value - 2 * number)));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

/// Images of three colours, `count` of each from `first` on; the class is the colour.
fn colours(first: u8, count: u8) -> LabelledImages {
    let colours = [[250, 60, 60], [60, 250, 60], [60, 60, 250]];
    let mut images = LabelledImages::default();
    for (class, colour) in (0..).zip(colours) {
        images
            .images
            .extend((first..first + count).map(|number| plain(colour, number)));
        images.classes.extend((0..count).map(|_| class));
    }
    images
}

#[test]
fn classes_that_embeddings_tell_apart_are_read_off_them() {
    let mut set = ClassificationSet {
        train: colours(0, 4),
        test: colours(4, 2),
    };
    set.test.images[0] = Bytes::from_static(b"no image");
    let config = ClassificationConfig {
        neighbours: 3,
        seed: 1,
    };
    let towers = encoder();
    let judge = |set: &ClassificationSet| {
        set.evaluate(towers.get(Side::Anchor), &LIMITS, &config)
            .unwrap()
    };
    let report = judge(&set);
    let found = report.classification;
    // The broken file is no test image.
    assert_eq!((found.train, found.test, found.classes), (12, 5, 3));
    assert_eq!((found.neighbour_accuracy, found.probe_accuracy), (1.0, 1.0));
    assert_eq!(report.probe_score.found, [1; 5]);
    // With the classes of the test images exchanged, the same answers are wrong.
    set.test
        .classes
        .iter_mut()
        .for_each(|class| *class = 2 - *class);
    let report = judge(&set);
    // Green is in the middle and stays.
    assert_eq!(report.neighbour_score.found, [0, 1, 1, 0, 0]);
    assert_eq!(report.probe_score.found, [0, 1, 1, 0, 0]);
}

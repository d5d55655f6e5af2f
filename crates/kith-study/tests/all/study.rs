//! Every study on a few synthetic images: the files it writes, and that an interruption does not change its result.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use kith_nn::Device;
use kith_pixels::{DecodedImage, Limits};
use kith_study::{NoProgress, Outcome, Point, Progress, Scale, StudyConfig, StudyKind, run_study};
use tempfile::TempDir;

/// A striped PNG of 40 px whose colours depend on `seed`.
fn png(seed: u32) -> Vec<u8> {
    let bits = |n: u64| kith_seed::mix(&[seed.into(), n]).to_le_bytes();
    let (a, b, stripe) = (bits(0), bits(1), 2 + seed % 5);
    let pixel = |index: u32| {
        let (x, y) = (index % 40, index / 40);
        let colour = if ((x + y * (seed % 3)) / stripe).is_multiple_of(2) {
            a
        } else {
            b
        };
        [colour[0], colour[1], colour[2]]
    };
    let rgb = (0..40 * 40).flat_map(pixel).collect();
    let image = DecodedImage::opaque(40, 40, rgb);
    kith_pixels::encode_png(&image)
}

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 1024,
};

/// Two classes, each of eight training and three test images.
fn images() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 8), ("test", 3)] {
        for class in ["cups", "hats"] {
            let target = folder.path().join(part).join(class);
            fs::create_dir_all(&target).unwrap();
            for number in 0..count {
                let seed = number * 4 + (class.len() as u32) + part.len() as u32;
                let name = format!("{number}.png");
                fs::write(target.join(name), png(seed + u32::from(class == "hats"))).unwrap();
            }
        }
    }
    folder
}

fn config(kind: StudyKind, images: &Path, out: &Path) -> StudyConfig {
    let encoder = ["width=8", "side=32", "dim=8"];
    let sets: &[&str] = match kind {
        StudyKind::Stationarity => &["visits=3000", "anchors=2", "betas=[5.0]"],
        StudyKind::Gradient => &[
            "images=8",
            "batches=[4]",
            "steps=16",
            "pretrain_steps=2",
            "burn_epochs=1",
        ],
        StudyKind::Figure2 => &["images=8", "steps=6", "every=2", "repeats=2"],
        StudyKind::Figure1 => &["batches=[4]", "steps=4", "every=2", "probe_epochs=5"],
        StudyKind::Towers => &["batch=4", "steps=4", "every=2"],
        StudyKind::Cost => &["batch=4", "steps=2", "small_steps=3", "chains=[100,1000]"],
    };
    let shape = match kind {
        StudyKind::Stationarity => &encoder[..0],
        _ => &encoder[..],
    };
    StudyConfig {
        kind,
        scale: Scale::Smoke,
        images: Some(images.to_owned()),
        out: out.to_owned(),
        seeds: vec![1],
        sets: sets.iter().chain(shape).map(ToString::to_string).collect(),
        device: Device::cpu(),
        limits: LIMITS,
    }
}

fn points(out: &Path) -> Vec<Point> {
    serde_json::from_slice(&fs::read(out.join("points.json")).unwrap()).unwrap()
}

fn check_report(kind: StudyKind, out: &Path, outcome: &Outcome) {
    let points = points(out);
    assert!(!points.is_empty(), "{kind:?}");
    let all = points.iter().flat_map(|point| point.values.values());
    assert!(all.clone().all(|value| value.is_finite()), "{kind:?}");
    let mut table = csv::Reader::from_path(out.join("points.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), points.len());
    // Both are read from the same digits, by two readers that may differ in the last bit.
    let first = points[0].values.values().next().unwrap();
    let near = |cell: &str| {
        cell.parse()
            .is_ok_and(|value: f64| (value - first).abs() <= 1e-12 * first.abs())
    };
    assert!(rows[0].iter().skip(3).any(near));

    let summary = fs::read_to_string(&outcome.summary).unwrap();
    assert!(!outcome.claims.is_empty());
    for claim in &outcome.claims {
        assert!(summary.contains(&claim.text) && summary.contains(&claim.evidence));
    }
    let verdict = summary.lines().last().unwrap();
    assert!(verdict.starts_with("**Verdict:**"), "{verdict}");
    if let Some(reason) = &outcome.unjudged {
        assert!(verdict.contains("not judged") && verdict.contains(reason.as_str()));
        return;
    }
    assert_eq!(verdict.contains("all claims hold"), outcome.holds());
    let mut drawn = 0;
    for line in summary.lines().filter(|line| line.starts_with("![")) {
        let name = line.rsplit_once('(').unwrap().1.trim_end_matches(".svg)");
        let svg = fs::read_to_string(out.join(format!("{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let png = fs::read(out.join(format!("{name}.png"))).unwrap();
        assert_eq!(kith_pixels::decode(&png, &LIMITS).unwrap().width, 960);
        drawn += 1;
    }
    assert!(drawn > 0, "{kind:?}");
    assert!(!out.join("state").exists(), "no run is in progress");
}

#[test]
fn every_study_writes_points_plots_and_a_verdict() {
    let (images, out) = (images(), tempfile::tempdir().unwrap());
    for kind in [
        StudyKind::Stationarity,
        StudyKind::Gradient,
        StudyKind::Figure2,
        StudyKind::Figure1,
        StudyKind::Cost,
        StudyKind::Towers,
    ] {
        let out = out.path().join(kind.name());
        let outcome = run_study(&config(kind, images.path(), &out), &NoProgress).unwrap();
        check_report(kind, &out, &outcome);
    }
}

/// Panics once `left` units are done.
struct Interrupting {
    left: AtomicU64,
}

impl Progress for Interrupting {
    fn begin(&self, _total: u64, _done: u64) {}
    fn begin_run(&self, _name: &str) {}
    fn advance(&self, units: u64) {
        let left = self.left.load(Ordering::Relaxed);
        assert!(left > units, "interrupted");
        self.left.store(left - units, Ordering::Relaxed);
    }
    fn finish(&self) {}
}

/// The measured values without times.
fn timeless(out: &Path) -> Vec<Point> {
    let mut points = points(out);
    for point in &mut points {
        point.values.remove("seconds");
    }
    points
}

#[test]
fn a_study_interrupted_anywhere_ends_with_the_same_points() {
    let images = images();
    for kind in [StudyKind::Figure2, StudyKind::Figure1] {
        let (whole, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run_study(&config(kind, images.path(), whole.path()), &NoProgress).unwrap();
        let config = config(kind, images.path(), resumed.path());
        for left in [1, 4, 6] {
            let left = AtomicU64::new(left);
            let cut = catch_unwind(AssertUnwindSafe(|| {
                run_study(&config, &Interrupting { left })
            }));
            assert!(cut.is_err(), "{kind:?} was not interrupted");
        }
        run_study(&config, &NoProgress).unwrap();
        assert_eq!(timeless(resumed.path()), timeless(whole.path()), "{kind:?}");
    }
}

/// Counts the units of work.
#[derive(Default)]
struct Counted {
    total: AtomicU64,
    earlier: AtomicU64,
    now: AtomicU64,
}

impl Progress for Counted {
    fn begin(&self, total: u64, done: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.earlier.store(done, Ordering::Relaxed);
    }
    fn begin_run(&self, _name: &str) {}
    fn advance(&self, units: u64) {
        self.now.fetch_add(units, Ordering::Relaxed);
    }
    fn finish(&self) {}
}

#[test]
fn seeds_can_be_added_and_finished_runs_are_not_measured_again() {
    let (images, out) = (images(), tempfile::tempdir().unwrap());
    let mut config = config(StudyKind::Figure2, images.path(), out.path());
    config.seeds = vec![1];
    run_study(&config, &NoProgress).unwrap();
    let first = points(out.path());
    config.seeds = vec![1, 2];
    let counted = Counted::default();
    run_study(&config, &counted).unwrap();
    let [total, earlier, now] =
        [&counted.total, &counted.earlier, &counted.now].map(|units| units.load(Ordering::Relaxed));
    assert_eq!((earlier, now), (total / 2, total / 2));
    let both = points(out.path());
    assert_eq!(both[..first.len()], first);
    assert_eq!(both.len(), 2 * first.len());
    // Another seed is another run.
    assert_ne!(both[0].values, both[first.len()].values);
}

#[test]
fn unusable_settings_and_images_are_refused_with_the_reason() {
    let (images, out) = (images(), tempfile::tempdir().unwrap());
    let refused = |change: &dyn Fn(&mut StudyConfig)| {
        let mut config = config(StudyKind::Figure1, images.path(), out.path());
        change(&mut config);
        run_study(&config, &NoProgress).unwrap_err().to_string()
    };
    assert!(refused(&|config| config.images = None).contains("--images"));
    assert!(refused(&|config| config.seeds.clear()).contains("seed"));
    assert!(refused(&|config| config.sets.push("batches=[1]".into())).contains("batches"));
    assert!(refused(&|config| config.sets.push("colour=red".into())).contains("no setting"));
    let flat = tempfile::tempdir().unwrap();
    fs::write(flat.path().join("1.png"), png(1)).unwrap();
    let flat = flat.path().to_owned();
    assert!(refused(&|config| config.images = Some(flat.clone())).contains("classes"));
    assert!(!out.path().join("points.jsonl").exists());
}

//! Settings: layers, their order, and what is refused.

use std::{ffi::OsString, fs, path::Path};

use kith::config::Settings;
use kith_pixels::Preset;

const DEFAULTS: &str = include_str!("../../config/default.toml");

fn load(
    file: Option<&Path>,
    variables: &[(&str, &str)],
    sets: &[&str],
) -> Result<Settings, String> {
    let variables: Vec<(OsString, OsString)> = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Settings::from_layers(file, variables, &sets).map_err(|error| error.to_string())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_built_in_defaults_are_valid() {
    let settings = load(None, &[], &[]).unwrap();
    assert_eq!(settings.server.listen, "127.0.0.1:7700");
    assert_eq!(settings.encoder.width, 64);
}

#[test]
fn a_file_wins_over_defaults_a_variable_over_the_file_and_a_flag_over_both() {
    let file = file("[training]\nbatch = 10\nmin_pairs = 11\nprefetch = 12\n");
    let variables = [
        ("KITH_TRAINING__BATCH", "20"),
        ("KITH_TRAINING__MIN_PAIRS", "21"),
    ];
    let run = load(Some(file.path()), &variables, &["training.batch=30"])
        .unwrap()
        .training;
    assert_eq!(
        (run.batch, run.min_pairs, run.prefetch, run.loader_threads),
        (30, 21, 12, 1)
    );
}

#[test]
fn nested_keys_lists_and_bare_text_can_be_set_from_outside_a_file() {
    let variables = [
        ("KITH_LEARNING__SAMPLER__ESTIMATOR", "walk"),
        ("KITH_AUGMENT__JITTER_STRENGTH", "[0.1, 0.2, 0.3, 0.4]"),
    ];
    let sets = [
        "storage.data_dir=2026",
        "server.listen=127.0.0.1:0",
        "learning.beta=7",
    ];
    let settings = load(None, &variables, &sets).unwrap();
    assert_eq!(settings.augment.jitter_strength, [0.1, 0.2, 0.3, 0.4]);
    assert_eq!(settings.storage.data_dir, Path::new("2026"));
    assert_eq!(settings.server.listen, "127.0.0.1:0");
    assert_eq!(settings.learning.beta, 7.0);
    assert_eq!(
        settings.learning.sampler.estimator,
        kith_mcmc::Estimator::Walk
    );
}

#[test]
fn an_unknown_key_is_refused_by_name_in_every_layer() {
    let bad = file("[server]\nlisten = \"127.0.0.1:1\"\nport = 1\n");
    for (message, name) in [
        (load(Some(bad.path()), &[], &[]), "server.port"),
        (
            load(None, &[("KITH_SERVER__PORT", "1")], &[]),
            "KITH_SERVER__PORT",
        ),
        (load(None, &[], &["server.port=1"]), "server.port"),
        (load(None, &[], &["server=1"]), "server"),
        (load(None, &[], &["sever.listen=1"]), "sever.listen"),
    ] {
        let message = message.unwrap_err();
        assert!(message.contains(name), "{message}");
    }
    let message = load(None, &[], &["server.port=1"]).unwrap_err();
    assert!(
        message.contains("max_body_bytes"),
        "the known keys are listed: {message}"
    );
}

#[test]
fn variables_that_are_not_settings_are_left_alone() {
    load(
        None,
        &[("KITH_SERVER", "x"), ("KITHSERVER__X", "x"), ("PATH", "x")],
        &[],
    )
    .unwrap();
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key() {
    for set in [
        "training.batch=many",
        "training.batch=2.5",
        "training.batch=-1",
        "training.enabled=3",
    ] {
        let message = load(None, &[], &[set]).unwrap_err();
        let key = set.split('=').next().unwrap();
        assert!(
            message.contains(&format!("{key} must be")),
            "{set}: {message}"
        );
    }
}

#[test]
fn every_layer_speaks_plainly_of_a_wrong_value() {
    let wrong = file("[encoder]\nside = \"abc\"\n");
    let table = file("[server.listen]\nport = 1\n");
    let broken = file("[server]\nlisten = 127.0.0.1\n");
    for (message, parts) in [
        (
            load(Some(wrong.path()), &[], &[]),
            vec!["encoder.side must be a whole number", "\"abc\""],
        ),
        (
            load(None, &[("KITH_ENCODER__SIDE", "1.5")], &[]),
            vec![
                "KITH_ENCODER__SIDE",
                "encoder.side must be a whole number",
                "1.5",
            ],
        ),
        (
            load(None, &[], &["learning.objective=foo"]),
            vec!["learning.objective must be emc2, ", " or exact", "\"foo\""],
        ),
        (
            load(None, &[], &["log.format=xml"]),
            vec!["log.format must be text or json, not \"xml\""],
        ),
        (
            load(None, &[], &["augment.jitter_strength=[1.0]"]),
            vec!["augment.jitter_strength must be a list of 4 numbers"],
        ),
        (
            load(None, &[], &["augment.preset=emoji"]),
            vec!["augment.preset must be photo, icon, document or product, not \"emoji\""],
        ),
        (
            load(None, &[], &["augment.posterise_levels=[3.5, 8]"]),
            vec![
                "augment.posterise_levels must be a list of 2 whole numbers",
                "[3.5, 8]",
            ],
        ),
        (
            load(None, &[], &["training.enabled=maybe"]),
            vec!["training.enabled must be true or false", "\"maybe\""],
        ),
        (
            load(Some(table.path()), &[], &[]),
            vec!["server.listen.port"],
        ),
        (
            load(Some(broken.path()), &[], &[]),
            vec!["is not TOML at line 2"],
        ),
    ] {
        let message = message.unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        for inside in ["usize", "u64", "f32", "expected", "variant", "`"] {
            assert!(!message.contains(inside), "{message}");
        }
    }
}

/// Settings that no server takes, and what each must be.
const OUT_OF_RANGE: &[(&str, &str)] = &[
    ("encoder.side=100", "a multiple of 32 from 32 to 224"),
    ("encoder.side=256", "a multiple of 32 from 32 to 224"),
    ("encoder.width=12", "a multiple of 8"),
    ("encoder.dim=4", "from 8"),
    (
        "keys.bytes_per_day=2000000000000",
        "from 0 to 1099511627776",
    ),
    ("traces.endpoint=localhost:4318", "a URL such as http://"),
    ("traces.sample_share=1.5", "from 0 to 1"),
    ("training.batch=1", "at least 2"),
    ("training.nice=20", "from 0 to 19"),
    ("pairs.holdout_share=0.95", "from 0 to 0.9"),
    (
        "snapshots.head_pairs=127",
        "0, for none, or from encoder.dim to",
    ),
    ("schedule.learning_rate=0", "above 0"),
    ("schedule.pretrained_factor=0", "above 0 and at most 1"),
    ("schedule.pretrained_factor=1.5", "above 0 and at most 1"),
    ("learning.beta=nan", "above 0"),
    ("learning.sogclr_gamma=0", "above 0 and at most 1"),
    ("learning.scent_alpha=0", "above 0"),
    ("learning.neuclip.prototypes=0", "from 1 to 65536"),
    ("learning.neuclip.rate=-1", "0 or more"),
    ("learning.neuclip.updates=1001", "at most 1000"),
    ("learning.neuclip.restart_steps=0", "at least 1"),
    ("learning.cache_images=0", "at least 1"),
    ("learning.cache_refresh=1.5", "from 0 to 1"),
    ("learning.exact_images=0", "at least 1"),
    ("augment.flip=1.5", "a probability"),
    ("augment.background=-0.1", "a probability"),
    ("augment.crop_min_area=0", "above 0 and at most 1"),
    ("augment.affine_degrees=181", "from 0 to 180"),
    (
        "augment.affine_scale=[1.2, 0.8]",
        "two values from 0.25 to 4",
    ),
    ("augment.affine_shift=0.6", "from 0 to 0.5"),
    ("augment.affine_shear=50", "from 0 to 45"),
    ("augment.palette_strength=2", "from 0 to 1"),
    (
        "augment.posterise_levels=[1, 8]",
        "two whole numbers from 2",
    ),
    (
        "augment.posterise_levels=[2, 300]",
        "a list of 2 smaller whole numbers",
    ),
    (
        "training.seed=18446744073709551615",
        "a whole number, at most 9223372036854775807",
    ),
    ("augment.outline_width=0.3", "from 0 to 0.2"),
    ("augment.jpeg_quality=[0, 90]", "two whole numbers from 1"),
    ("gate.collapse_cosine=2", "from -1 to 1"),
    (
        "serving.queue_images=9223372036854775807",
        "from 1 to 1048576",
    ),
    (
        "server.grace_seconds=9223372036854775807",
        "from 1 to 86400",
    ),
    ("training.prefetch=9223372036854775807", "from 1 to 1024"),
    ("snapshots.every_minutes=1e300", "from 0 to 525600"),
];

#[test]
fn values_out_of_range_are_refused_with_the_remedy() {
    for (set, remedy) in OUT_OF_RANGE {
        let message = load(None, &[], &[set]).unwrap_err();
        let key = set.split('=').next().unwrap();
        assert!(
            message.contains(&format!("{key} must be {remedy}")),
            "{message}"
        );
    }
}

#[test]
fn what_only_a_falling_rate_needs_is_asked_of_that_alone() {
    let low = ["schedule.learning_rate=1e-9", "schedule.total_steps=100"];
    assert!(load(None, &[], &low).is_ok());
    let falls = [low[0], low[1], "schedule.decay=\"cosine\""];
    let message = load(None, &[], &falls).unwrap_err();
    for key in ["schedule.final_rate", "schedule.total_steps"] {
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let message = load(None, &[], &["encoder.dim=1", "training.batch=0"]).unwrap_err();
    assert!(
        message.contains("encoder.dim") && message.contains("training.batch"),
        "{message}"
    );
}

#[test]
fn printed_settings_read_back_unchanged() {
    let settings = load(
        None,
        &[],
        &["training.seed=9", "schedule.learning_rate=0.0003"],
    )
    .unwrap();
    let printed = file(&settings.to_toml());
    assert_eq!(load(Some(printed.path()), &[], &[]).unwrap(), settings);
}

#[test]
fn a_preset_sets_all_of_augment_and_single_settings_win_over_it_in_every_layer() {
    let icon = load(None, &[], &["augment.preset=icon"]).unwrap().augment;
    assert_eq!((icon.preset, icon.flip), (Preset::Icon, 0.0));
    assert!(icon.background > 0.0 && icon.affine > 0.0 && icon.jpeg > 0.0);
    // The weaker layer's value wins over the stronger layer's preset: the preset lies below both.
    let file = file("[augment]\nflip = 0.2\n");
    let variables = [("KITH_AUGMENT__PRESET", "icon")];
    let sets = ["augment.blur=0.6"];
    let settings = load(Some(file.path()), &variables, &sets).unwrap();
    let expected = kith_pixels::AugmentConfig {
        flip: 0.2,
        blur: 0.6,
        ..icon
    };
    assert_eq!(settings.augment, expected);
    let defaults = load(None, &[], &[]).unwrap();
    assert_eq!(
        load(None, &[], &["augment.preset=photo"]).unwrap(),
        defaults
    );
    assert!(!defaults.augment.uses_alpha());
}

#[test]
fn every_preset_is_valid_and_printed_in_full() {
    for preset in Preset::ALL.map(Preset::name) {
        let set = format!("augment.preset={preset}");
        let settings = load(None, &[], &[&set]).unwrap();
        assert_eq!(settings.augment.preset.name(), preset);
        let printed = settings.to_toml();
        assert!(printed.contains(&format!("background = {:?}", settings.augment.background)));
        assert_eq!(
            load(Some(file(&printed).path()), &[], &[]).unwrap(),
            settings
        );
    }
}

#[test]
fn the_production_overlay_is_valid() {
    let overlay = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/production.toml"
    ));
    assert_eq!(
        load(Some(overlay), &[], &[]).unwrap().log.format,
        kith::config::LogFormat::Json
    );
}

/// A comment covers the keys below it up to the next blank line or section.
#[test]
fn every_default_has_a_comment_above_it_or_its_group() {
    let mut commented = false;
    for line in DEFAULTS.lines() {
        match line.trim() {
            "" => commented = false,
            line if line.starts_with('#') => commented = true,
            line if line.starts_with('[') => commented = false,
            key => assert!(commented, "no comment above: {key}"),
        }
    }
}

#[test]
fn a_photo_of_48_megapixels_is_within_the_default_limits() {
    let limits = Settings::from_layers(None, [], &[]).unwrap().limits;
    let photo = kith_pixels::sample(kith_pixels::SampleFormat::Jpeg, 8064, 6048);
    kith_pixels::inspect(&photo, &limits).unwrap();
}

#[test]
fn training_pauses_beside_requests_unless_its_threads_have_cores_of_their_own() {
    let share = |sets: &[&str]| {
        let own = [
            "training.min_share=0.25",
            "serving.threads=3",
            "serving.decode_threads=2",
        ];
        let own = own
            .into_iter()
            .chain(["training.threads=2", "training.loader_threads=1"]);
        let sets: Vec<&str> = own.chain(sets.iter().copied()).collect();
        load(None, &[], &sets).unwrap().background_share(8)
    };
    assert_eq!(share(&[]), 1.0);
    for one_more in [
        "serving.threads=4",
        "serving.decode_threads=3",
        "training.threads=3",
        "training.loader_threads=2",
        "serving.threads=0",
    ] {
        assert_eq!(share(&[one_more]), 0.25, "{one_more}");
        assert_eq!(share(&[one_more, "encoder.device=cuda:0"]), 1.0);
    }
    assert!(load(None, &[], &["training.min_share=1.5"]).is_err());
}

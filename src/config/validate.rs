//! Ranges of the settings, with the remedy of each: what is refused at start instead of failing hours later.
//! Must never know: where a setting came from.

use super::{ConfigError, Settings};
use kith_nn::Precision;

/// Whether a rule holds, which key it is about, and what the key must be.
type Rule = (bool, &'static str, &'static str);

/// All broken rules in one message.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let broken: Vec<String> = [
        server(settings),
        serving(settings),
        connections(settings),
        encoder(settings),
        training(settings),
        learning(settings),
        augment(settings),
        snapshots(settings),
    ]
    .into_iter()
    .flatten()
    .filter(|(holds, ..)| !holds)
    .map(|(_, key, must)| format!("{key} must be {must}"))
    .collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(ConfigError(format!("settings: {}", broken.join("; ")))),
    }
}

fn positive(value: f32) -> bool {
    value > 0.0 && value.is_finite()
}

fn share(value: f32) -> bool {
    (0.0..=1.0).contains(&value)
}

fn connections(settings: &Settings) -> Vec<Rule> {
    let server = &settings.server;
    let host = |name: &String| !name.is_empty() && !name.contains("://") && !name.contains('/');
    let origin = |site: &String| {
        let place = site.split_once("://").map(|(_, place)| place);
        place.is_some_and(|place| !place.is_empty() && !place.trim_end_matches('/').contains('/'))
    };
    let hours = 1..=86_400;
    vec![
        (
            server.allowed_hosts.iter().all(host),
            "server.allowed_hosts",
            "names such as kith.example.org, without https:// before them",
        ),
        (
            server.allowed_origins.iter().all(origin),
            "server.allowed_origins",
            "sites such as https://app.example.org, without a path",
        ),
        (
            (1..=65_536).contains(&server.max_connections),
            "server.max_connections",
            "from 1 to 65536",
        ),
        (
            hours.contains(&server.header_timeout_seconds),
            "server.header_timeout_seconds",
            "from 1 to 86400",
        ),
        (
            hours.contains(&server.idle_timeout_seconds),
            "server.idle_timeout_seconds",
            "from 1 to 86400",
        ),
        (
            hours.contains(&server.body_timeout_seconds),
            "server.body_timeout_seconds",
            "from 1 to 86400",
        ),
        (
            hours.contains(&server.write_timeout_seconds),
            "server.write_timeout_seconds",
            "from 1 to 86400",
        ),
    ]
}

fn server(settings: &Settings) -> Vec<Rule> {
    let server = &settings.server;
    vec![
        (
            !server.listen.is_empty(),
            "server.listen",
            "an address and port such as 127.0.0.1:7700",
        ),
        (
            server.timeout_seconds > 0,
            "server.timeout_seconds",
            "at least 1",
        ),
        (
            server.max_body_bytes > 0,
            "server.max_body_bytes",
            "at least 1",
        ),
        (
            server.max_buffered_bytes >= server.max_body_bytes,
            "server.max_buffered_bytes",
            "at least server.max_body_bytes",
        ),
        (server.max_images > 0, "server.max_images", "at least 1"),
        (server.max_pairs > 0, "server.max_pairs", "at least 1"),
        (
            server.grace_seconds > 0,
            "server.grace_seconds",
            "at least 1: the last snapshot needs time",
        ),
        (
            !settings.storage.data_dir.as_os_str().is_empty(),
            "storage.data_dir",
            "a folder",
        ),
    ]
}

fn serving(settings: &Settings) -> Vec<Rule> {
    let (serving, limits) = (&settings.serving, &settings.limits);
    vec![
        (
            serving.threads <= 1024,
            "serving.threads",
            "at most 1024 (0: one for each core)",
        ),
        (
            serving.decode_threads <= 1024,
            "serving.decode_threads",
            "at most 1024 (0: one for each core)",
        ),
        (
            serving.queue_images > 0,
            "serving.queue_images",
            "at least 1",
        ),
        (
            serving.precision == Precision::F32 || settings.encoder.device == "cpu",
            "serving.precision",
            "f32 unless encoder.device is cpu",
        ),
        (serving.max_batch > 0, "serving.max_batch", "at least 1"),
        (serving.follow_ms > 0, "serving.follow_ms", "at least 1"),
        (limits.max_bytes > 0, "limits.max_bytes", "at least 1"),
        (
            (1..=1 << 32).contains(&limits.max_pixels),
            "limits.max_pixels",
            "from 1 to 4294967296",
        ),
        (
            (64..=1 << 20).contains(&limits.decode_memory_mb),
            "limits.decode_memory_mb",
            "from 64 to 1048576",
        ),
    ]
}

fn encoder(settings: &Settings) -> Vec<Rule> {
    let encoder = &settings.encoder;
    let side = (32..=224).contains(&encoder.side) && encoder.side.is_multiple_of(32);
    let width = (8..=512).contains(&encoder.width) && encoder.width.is_multiple_of(8);
    vec![
        (side, "encoder.side", "a multiple of 32 from 32 to 224"),
        (
            width,
            "encoder.width",
            "a multiple of 8 from 8 to 512 (64 is ResNet-18)",
        ),
        (
            (8..=8192).contains(&encoder.dim),
            "encoder.dim",
            "from 8 to 8192",
        ),
    ]
}

fn training(settings: &Settings) -> Vec<Rule> {
    let (run, schedule) = (&settings.training, &settings.schedule);
    let holdout = (0.0..=0.9).contains(&settings.pairs.holdout_share);
    vec![
        (holdout, "pairs.holdout_share", "from 0 to 0.9"),
        (
            run.batch >= 2,
            "training.batch",
            "at least 2: a pair needs another pair's images as negatives",
        ),
        (run.min_pairs >= 2, "training.min_pairs", "at least 2"),
        (
            run.threads <= 1024,
            "training.threads",
            "at most 1024 (0: one for each core)",
        ),
        (
            (1..=256).contains(&run.loader_threads),
            "training.loader_threads",
            "from 1 to 256",
        ),
        (run.prefetch >= 1, "training.prefetch", "at least 1"),
        (
            (0..=19).contains(&run.nice),
            "training.nice",
            "from 0 to 19",
        ),
        (run.max_skipped >= 1, "training.max_skipped", "at least 1"),
        (
            run.metrics_every >= 1,
            "training.metrics_every",
            "at least 1",
        ),
        (
            run.metrics_rows >= 1000,
            "training.metrics_rows",
            "at least 1000",
        ),
        (
            run.max_backoff_seconds >= 1,
            "training.max_backoff_seconds",
            "at least 1",
        ),
        (
            positive(schedule.learning_rate),
            "schedule.learning_rate",
            "above 0",
        ),
        (
            schedule.final_rate >= 0.0 && schedule.final_rate <= schedule.learning_rate,
            "schedule.final_rate",
            "from 0 to schedule.learning_rate",
        ),
        (
            schedule.total_steps > schedule.warmup_steps,
            "schedule.total_steps",
            "above schedule.warmup_steps",
        ),
    ]
}

fn learning(settings: &Settings) -> Vec<Rule> {
    let (learn, optimizer) = (&settings.learning, &settings.optimizer);
    let burn_in = (0.0..1.0).contains(&learn.sampler.burn_in);
    let budget = learn.carried_budget > 0.0 && learn.carried_budget <= 1.0;
    vec![
        (positive(learn.beta), "learning.beta", "above 0"),
        (budget, "learning.carried_budget", "above 0 and at most 1"),
        (
            learn.roulette >= 0.0 && learn.roulette.is_finite(),
            "learning.roulette",
            "0 or more",
        ),
        (
            learn.sogclr_gamma > 0.0 && learn.sogclr_gamma <= 1.0,
            "learning.sogclr_gamma",
            "above 0 and at most 1",
        ),
        (
            learn.cache_images > 0,
            "learning.cache_images",
            "at least 1",
        ),
        (
            share(learn.cache_refresh),
            "learning.cache_refresh",
            "from 0 to 1",
        ),
        (
            learn.exact_images > 0,
            "learning.exact_images",
            "at least 1",
        ),
        (
            burn_in,
            "learning.sampler.burn_in",
            "at least 0 and below 1",
        ),
        (
            optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite(),
            "optimizer.weight_decay",
            "0 or more",
        ),
        (
            (0.0..1.0).contains(&optimizer.momentum),
            "optimizer.momentum",
            "at least 0 and below 1",
        ),
        (
            (0.0..1.0).contains(&optimizer.beta2),
            "optimizer.beta2",
            "at least 0 and below 1",
        ),
        (positive(optimizer.epsilon), "optimizer.epsilon", "above 0"),
        (
            optimizer.clip_norm >= 0.0 && optimizer.clip_norm.is_finite(),
            "optimizer.clip_norm",
            "0 or more",
        ),
    ]
}

fn augment(settings: &Settings) -> Vec<Rule> {
    let augment = &settings.augment;
    let jitter = augment.jitter_strength;
    let hue = jitter.iter().all(|range| share(*range)) && jitter[3] <= 0.5;
    let crop = augment.crop_min_area > 0.0 && augment.crop_min_area <= 1.0;
    vec![
        (crop, "augment.crop_min_area", "above 0 and at most 1"),
        (
            share(augment.flip),
            "augment.flip",
            "a probability from 0 to 1",
        ),
        (
            share(augment.jitter),
            "augment.jitter",
            "a probability from 0 to 1",
        ),
        (
            share(augment.greyscale),
            "augment.greyscale",
            "a probability from 0 to 1",
        ),
        (
            share(augment.blur),
            "augment.blur",
            "a probability from 0 to 1",
        ),
        (
            hue,
            "augment.jitter_strength",
            "four values from 0 to 1, the last (hue) at most 0.5",
        ),
    ]
}

fn snapshots(settings: &Settings) -> Vec<Rule> {
    let (snapshots, gate) = (&settings.snapshots, &settings.gate);
    let minutes = snapshots.every_minutes >= 0.0 && snapshots.every_minutes.is_finite();
    let recovery = snapshots.recovery_rate > 0.0 && snapshots.recovery_rate <= 1.0;
    vec![
        (minutes, "snapshots.every_minutes", "0 or more"),
        (
            snapshots.evaluation_pairs >= 1,
            "snapshots.evaluation_pairs",
            "at least 1",
        ),
        (recovery, "snapshots.recovery_rate", "above 0 and at most 1"),
        (
            snapshots.recovery_floor > 0.0 && snapshots.recovery_floor <= 1.0,
            "snapshots.recovery_floor",
            "above 0 and at most 1",
        ),
        (
            (0.5..1.0).contains(&gate.confidence),
            "gate.confidence",
            "from 0.5 to below 1",
        ),
        (
            (0.0..=1.0).contains(&gate.collapse_spread),
            "gate.collapse_spread",
            "from 0 to 1",
        ),
        (
            (-1.0..=1.0).contains(&gate.collapse_cosine),
            "gate.collapse_cosine",
            "from -1 to 1",
        ),
        (
            settings.retention.keep_latest >= 1,
            "retention.keep_latest",
            "at least 1",
        ),
    ]
}

//! The ranges of the settings, checked at start. Settings of the encoder, the optimiser and the learning step are checked by their crates.

use std::{fmt::Display, ops::RangeInclusive};

use super::{error::ConfigError, settings::Settings};
use kith_learn::Decay;
use kith_nn::Precision;

/// A day: times beyond it would overflow the clock, and nobody waits so long.
const MAX_SECONDS: u64 = 86_400;
/// Most items of one list, queue or batch: memory for them is taken at once.
const MAX_ITEMS: usize = 1 << 20;

/// A graph counts its vectors in 32 bits.
const MAX_SEARCHED: usize = u32::MAX as usize - 1;

/// 16 TiB: bytes beyond it would not fit their counters.
const MAX_CACHE_MB: u64 = 1 << 24;

/// Checks all settings; the error names every key that is out of range and what it must be.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let mut rules = Rules::default();
    server(settings, &mut rules);
    dashboard(settings, &mut rules);
    hosts(settings, &mut rules);
    serving(settings, &mut rules);
    search(settings, &mut rules);
    training(settings, &mut rules);
    schedule(settings, &mut rules);
    snapshots(settings, &mut rules);
    rules.rule(
        "encoder.start",
        !settings.encoder.start.is_empty(),
        "starter, fresh, or a file of weights",
    );
    rules.section("encoder", settings.encoder_config().problems());
    rules.section("optimizer", settings.optimizer.problems());
    rules.section("learning", settings.learning.problems());
    rules.section("augment", settings.augment.problems());
    if rules.broken.is_empty() {
        Ok(())
    } else {
        let broken = rules.broken.join("; ");
        Err(ConfigError(format!("settings: {broken}")))
    }
}

/// The broken rules so far.
#[derive(Default)]
struct Rules {
    broken: Vec<String>,
}

impl Rules {
    /// `key` must be `expected`, which `holds` says.
    fn rule(&mut self, key: &str, holds: bool, expected: impl Display) {
        if !holds {
            self.broken.push(format!("{key} must be {expected}"));
        }
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        let expected = format!("from {} to {}", range.start(), range.end());
        self.rule(key, range.contains(&value), expected);
    }

    fn at_least<T: PartialOrd + Display>(&mut self, key: &str, value: T, min: T) {
        self.rule(key, value >= min, format_args!("at least {min}"));
    }

    fn positive(&mut self, key: &str, value: f32) {
        self.rule(key, value > 0.0 && value.is_finite(), "above 0");
    }

    /// Threads of a pool.
    fn threads(&mut self, key: &str, value: usize) {
        let holds = value <= 1024;
        self.rule(key, holds, "at most 1024 (0: one for each core)");
    }

    /// A share that is not 0.
    fn positive_share(&mut self, key: &str, value: f32) {
        let holds = value > 0.0 && value <= 1.0;
        self.rule(key, holds, "above 0 and at most 1");
    }

    /// Adds the problems that a crate found in its settings.
    fn section(&mut self, section: &str, problems: Vec<(&'static str, &'static str)>) {
        for (key, expected) in problems {
            self.rule(&format!("{section}.{key}"), false, expected);
        }
    }
}

fn server(settings: &Settings, rules: &mut Rules) {
    let server = &settings.server;
    rules.rule(
        "server.listen",
        !server.listen.is_empty(),
        "an address and port such as 127.0.0.1:7700",
    );
    rules.range("server.max_connections", server.max_connections, 1..=65_536);
    rules.range("server.max_requests", server.max_requests, 1..=MAX_ITEMS);
    for (key, seconds) in [
        ("header_timeout_seconds", server.header_timeout_seconds),
        ("idle_timeout_seconds", server.idle_timeout_seconds),
        ("body_timeout_seconds", server.body_timeout_seconds),
        ("write_timeout_seconds", server.write_timeout_seconds),
    ] {
        rules.range(&format!("server.{key}"), seconds, 1..=MAX_SECONDS);
    }
    rules.range(
        "server.timeout_seconds",
        server.timeout_seconds,
        1..=MAX_SECONDS,
    );
    rules.at_least("server.max_body_bytes", server.max_body_bytes, 1);
    rules.rule(
        "server.max_buffered_bytes",
        server.max_buffered_bytes >= server.max_body_bytes,
        "at least server.max_body_bytes",
    );
    rules.range("server.max_images", server.max_images, 1..=MAX_ITEMS);
    rules.range("server.max_pairs", server.max_pairs, 1..=MAX_ITEMS);
    rules.rule(
        "server.grace_seconds",
        (1..=MAX_SECONDS).contains(&server.grace_seconds),
        "from 1 to 86400: the last snapshot needs time",
    );
    // A TiB: beyond it the count of KiB would overflow.
    rules.range(
        "keys.bytes_per_day",
        settings.keys.bytes_per_day,
        0..=1 << 40,
    );
    let (endpoint, share) = (&settings.traces.endpoint, settings.traces.sample_share);
    let url = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    rules.rule(
        "traces.endpoint",
        url || endpoint.is_empty(),
        "a URL such as http://127.0.0.1:4318/v1/traces, or empty",
    );
    rules.range("traces.sample_share", share, 0.0..=1.0);
    let folder = settings.storage.data_dir.as_os_str();
    rules.rule("storage.data_dir", !folder.is_empty(), "a folder");
}

fn dashboard(settings: &Settings, rules: &mut Rules) {
    let history = &settings.history;
    rules.range(
        "history.every_seconds",
        history.every_seconds,
        0..=MAX_SECONDS,
    );
    rules.range("history.days", history.days, 1..=3650);
    rules.range(
        "server.thumbnail_cache_mb",
        settings.server.thumbnail_cache_mb,
        0..=MAX_CACHE_MB,
    );
}

fn hosts(settings: &Settings, rules: &mut Rules) {
    let server = &settings.server;
    let host = |name: &String| !name.is_empty() && !name.contains("://") && !name.contains('/');
    rules.rule(
        "server.allowed_hosts",
        server.allowed_hosts.iter().all(host),
        "names such as kith.example.org, without https:// before them",
    );
    let origin = |site: &String| {
        let host = site.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| !host.is_empty() && !host.trim_end_matches('/').contains('/'))
    };
    rules.rule(
        "server.allowed_origins",
        server.allowed_origins.iter().all(origin),
        "sites such as https://app.example.org, without a path",
    );
}

fn serving(settings: &Settings, rules: &mut Rules) {
    let (serving, limits) = (&settings.serving, &settings.limits);
    rules.threads("serving.threads", serving.threads);
    rules.threads("serving.decode_threads", serving.decode_threads);
    rules.range("serving.queue_images", serving.queue_images, 1..=MAX_ITEMS);
    rules.rule(
        "serving.precision",
        serving.precision == Precision::F32 || settings.encoder.device == "cpu",
        "f32 unless encoder.device is cpu",
    );
    rules.range("serving.max_batch", serving.max_batch, 1..=MAX_ITEMS);
    rules.range("serving.cache_mb", serving.cache_mb, 0..=MAX_CACHE_MB);
    rules.range(
        "serving.follow_ms",
        serving.follow_ms,
        1..=1000 * MAX_SECONDS,
    );
    rules.at_least("limits.max_bytes", limits.max_bytes, 1);
    rules.range("limits.max_pixels", limits.max_pixels, 1..=1 << 32);
    rules.range(
        "limits.decode_memory_mb",
        limits.decode_memory_mb,
        64..=1 << 20,
    );
}

fn search(settings: &Settings, rules: &mut Rules) {
    let search = &settings.search;
    rules.range("search.checkpoints", search.checkpoints, 0..=1000);
    rules.range("search.max_images", search.max_images, 1..=MAX_SEARCHED);
    rules.at_least("search.max_scanned", search.max_scanned, 1);
    rules.rule(
        "search.background_share",
        search.background_share > 0.001 && search.background_share <= 1.0,
        "above 0.001 and at most 1",
    );
    rules.range(
        "search.queue_requests",
        search.queue_requests,
        1..=MAX_ITEMS,
    );
}

fn training(settings: &Settings, rules: &mut Rules) {
    let run = &settings.training;
    rules.range(
        "pairs.holdout_share",
        settings.pairs.holdout_share,
        0.0..=0.9,
    );
    rules.rule(
        "training.batch",
        run.batch >= 2,
        "at least 2: a pair needs another pair's images as negatives",
    );
    rules.at_least("training.min_pairs", run.min_pairs, 2);
    rules.threads("training.threads", run.threads);
    rules.range("training.loader_threads", run.loader_threads, 1..=256);
    rules.range("training.prefetch", run.prefetch, 1..=1024);
    rules.range("training.nice", run.nice, 0..=19);
    rules.at_least("training.recent_steps", run.recent_steps, 2);
    rules.range("training.recent_share", run.recent_share, 0.0..=0.9);
    rules.range("training.min_share", run.min_share, 0.0..=1.0);
    rules.at_least("training.max_skipped", run.max_skipped, 1);
    rules.at_least("training.metrics_every", run.metrics_every, 1);
    rules.at_least("training.metrics_rows", run.metrics_rows, 1000);
    rules.range(
        "training.max_backoff_seconds",
        run.max_backoff_seconds,
        1..=MAX_SECONDS,
    );
}

fn schedule(settings: &Settings, rules: &mut Rules) {
    let schedule = &settings.schedule;
    rules.positive("schedule.learning_rate", schedule.learning_rate);
    rules.rule(
        "schedule.pretrained_factor",
        (f32::MIN_POSITIVE..=1.0).contains(&schedule.pretrained_factor),
        "above 0 and at most 1",
    );
    // A constant rate has neither.
    let falls = schedule.decay == Decay::Cosine;
    rules.rule(
        "schedule.final_rate",
        !falls || (0.0..=schedule.learning_rate).contains(&schedule.final_rate),
        "from 0 to schedule.learning_rate",
    );
    rules.rule(
        "schedule.total_steps",
        !falls || schedule.total_steps > schedule.warmup_steps,
        "above schedule.warmup_steps",
    );
}

fn snapshots(settings: &Settings, rules: &mut Rules) {
    let (snapshots, gate) = (&settings.snapshots, &settings.gate);
    // A year.
    rules.range(
        "snapshots.every_minutes",
        snapshots.every_minutes,
        0.0..=525_600.0,
    );
    // Their features are in memory together: at full width 20 KB for a pair, and up to 40 where its images are one, so at most 2 GB.
    rules.rule(
        "snapshots.head_pairs",
        snapshots.head_pairs == 0
            || (settings.encoder.dim..=50_000).contains(&snapshots.head_pairs),
        "0, for none, or from encoder.dim to 50000",
    );
    rules.range(
        "snapshots.head_seconds",
        snapshots.head_seconds,
        0.0..=3600.0,
    );
    rules.at_least("snapshots.evaluation_pairs", snapshots.evaluation_pairs, 1);
    rules.positive_share("snapshots.recovery_rate", snapshots.recovery_rate);
    rules.positive_share("snapshots.recovery_floor", snapshots.recovery_floor);
    rules.rule(
        "gate.confidence",
        (0.5..1.0).contains(&gate.confidence),
        "from 0.5 to below 1",
    );
    rules.range("gate.collapse_spread", gate.collapse_spread, 0.0..=1.0);
    rules.range("gate.collapse_cosine", gate.collapse_cosine, -1.0..=1.0);
    rules.at_least("retention.keep_latest", settings.retention.keep_latest, 1);
}

//! The series of one server: handles to count with, and their text for Prometheus.
//!
//! A recorder belongs to an app and not to the process: several apps of one process, as in tests, do not share series. Parts are given their
//! handles when they start, so that counting is one atomic operation, without a look-up.

use std::sync::Arc;

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

pub use metrics::{Counter, Gauge, Histogram};

use super::series::{self, Kind, Series};

const METADATA: Metadata<'static> = Metadata::new("kith", Level::INFO, None);

/// The series of a server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl Metrics {
    /// No values yet.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for series in series::ALL {
            if let Kind::Histogram(bounds) = series.kind {
                let name = Matcher::Full(series.name.to_owned());
                builder = builder
                    .set_buckets_for_metric(name, bounds)
                    .expect("every histogram has bounds");
            }
        }
        let recorder = builder.build_recorder();
        for Series { name, kind, help } in series::ALL {
            let name = (*name).into();
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, (*help).into()),
                Kind::Gauge => recorder.describe_gauge(name, None, (*help).into()),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, (*help).into()),
            }
        }
        Self {
            recorder: Arc::new(recorder),
        }
    }

    /// The counter of `series` with these labels.
    pub fn counter(&self, series: &Series, labels: Vec<(&'static str, String)>) -> Counter {
        self.recorder
            .register_counter(&key(series, labels), &METADATA)
    }

    /// The gauge of `series` with these labels.
    pub fn gauge(&self, series: &Series, labels: Vec<(&'static str, String)>) -> Gauge {
        self.recorder
            .register_gauge(&key(series, labels), &METADATA)
    }

    /// The histogram of `series` with these labels. Its values lie in a list until [`Self::drain`] or [`Self::render`].
    pub fn histogram(&self, series: &Series, labels: Vec<(&'static str, String)>) -> Histogram {
        self.recorder
            .register_histogram(&key(series, labels), &METADATA)
    }

    /// Sets the gauge of a series without labels.
    pub fn set(&self, series: &Series, value: f64) {
        self.gauge(series, Vec::new()).set(value);
    }

    /// Adds the listed values of all histograms to their buckets: to be called every few seconds, so that the lists stay short though
    /// nobody reads them.
    pub fn drain(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// All series as Prometheus' text.
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn key(series: &Series, labels: Vec<(&'static str, String)>) -> Key {
    let labels: Vec<Label> = labels
        .into_iter()
        .map(|(name, value)| Label::new(name, value))
        .collect();
    Key::from_parts(series.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_of_one_process_do_not_share_series() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.counter(&series::CACHE_HITS, Vec::new()).increment(2);
        assert!(one.render().contains("\nkith_vector_cache_hits_total 2\n"));
        assert!(!other.render().contains("kith_vector_cache_hits_total"));
    }

    #[test]
    fn a_histogram_has_the_bounds_of_its_series() {
        let metrics = Metrics::new();
        let batch = metrics.histogram(&series::SERVING_BATCH, Vec::new());
        batch.record(3.0);
        metrics.drain();
        batch.record(300.0);
        let text = metrics.render();
        for line in [
            "# TYPE kith_serving_batch_images histogram",
            "kith_serving_batch_images_bucket{le=\"2\"} 0",
            "kith_serving_batch_images_bucket{le=\"4\"} 1",
            "kith_serving_batch_images_bucket{le=\"+Inf\"} 2",
            "kith_serving_batch_images_sum 303",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for Series { name, kind, .. } in series::ALL {
            assert!(name.starts_with("kith_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
    }
}

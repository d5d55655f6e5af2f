//! Traces: the span of each request and those of its stages, sent to a collector by OTLP. The caller's `traceparent` is the parent.
//!
//! Spans wait in a bounded queue for a thread that sends them; what finds no place is dropped. A collector that is slow or away delays and
//! fails nothing. Without an endpoint no span of a stage exists.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::throttle::LogThrottle;

/// The target of the spans of stages. Their level is trace, so that they cost nothing and show in no log unless traces are on.
pub const STAGE: &str = "kith::stage";

/// The target of the spans of requests.
pub const REQUEST: &str = "kith::request";

/// How often waiting spans are sent.
const SEND_EVERY: Duration = Duration::from_secs(1);

/// How long a sending may take, and how long a stop waits for the last.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Most spans that wait.
const MAX_WAITING: usize = 8192;

/// Whether this process sends traces.
static ON: AtomicBool = AtomicBool::new(false);

/// `[traces]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's URL; empty: no traces.
    pub endpoint: String,
    /// Share of the requests without a `traceparent` that are traced.
    pub sample_share: f64,
}

/// The sending of spans.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the thread that sends.
    pub(super) fn start(config: &TracesConfig) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.endpoint)
            .with_timeout(SEND_TIMEOUT)
            .build()
            .map_err(|error| format!("traces.endpoint \"{}\": {error}", config.endpoint))?;
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(SEND_EVERY)
            .with_max_queue_size(MAX_WAITING)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
        let share = Sampler::TraceIdRatioBased(config.sample_share);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty()
            .with_service_name("kith")
            .with_attribute(version);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches.build())
            .with_sampler(Sampler::ParentBased(Box::new(share)))
            .with_resource(resource.build());
        ON.store(true, Relaxed);
        Ok(Self(provider.build()))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("kith")
    }

    /// Sends what waits, for at most two seconds.
    pub fn stop(self) {
        if let Err(error) = self.0.shutdown_with_timeout(STOP_TIMEOUT) {
            tracing::warn!(%error, "the last spans are lost");
        }
    }
}

/// What a request says of its caller's trace: the headers of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The trace, and the span that the request is part of.
    pub traceparent: Option<&'a str>,
    /// What tracing systems hand on to each other.
    pub tracestate: Option<&'a str>,
}

/// Gives the span of a request its name and its parent, and records the trace's id in it for the log.
pub fn begin_request(span: &Span, method: &str, route: Option<&str>, caller: Caller<'_>) {
    if !ON.load(Relaxed) || span.is_disabled() {
        return;
    }
    span.record("otel.kind", "server");
    let parent = TraceContextPropagator::new().extract(&caller);
    // Fails where no layer takes the span: it is not sent then.
    let _ = span.set_parent(parent);
    let context = span.context();
    let started = context.span();
    if !started.span_context().is_valid() {
        return;
    }
    let name = route.map_or(Cow::Owned(method.to_owned()), |route| {
        format!("{method} {route}").into()
    });
    started.update_name(name);
    let trace = tracing::field::display(started.span_context().trace_id());
    span.record("trace_id", trace);
    started.set_attribute(KeyValue::new("http.request.method", method.to_owned()));
    if let Some(route) = route {
        started.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
}

/// Notes the status of the answer to the request whose span is current.
pub fn end_request(status: u16) {
    if ON.load(Relaxed) {
        let status = i64::from(status);
        Span::current().set_attribute("http.response.status_code", status);
    }
}

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Sends one batch after another from the exporter's own thread.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    errors: LogThrottle,
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(SEND_TIMEOUT));
        Self {
            agent: config.build().new_agent(),
            errors: LogThrottle::default(),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = self
            .agent
            .run(request.map(|body| body.to_vec()))?
            .into_parts();
        if !parts.status.is_success() {
            return Err(format!("the collector answered {}", parts.status).into());
        }
        drop(body);
        Ok(Response::from_parts(parts, Bytes::new()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Sent<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.send(request).inspect_err(|error| {
                if let Some(left_out) = self.errors.ready() {
                    tracing::warn!(%error, left_out, "traces cannot be sent");
                }
            })
        })
    }
}

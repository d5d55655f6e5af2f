//! Counts and times requests. Labels are the route as the router spells it, the method and the status: no client can make up a series.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::error::{ApiError, ErrorCode};
use crate::telemetry::{Gauge, Metrics, series, traces};

/// The route of a request that no route matches.
const UNMATCHED: &str = "none";
/// A method that no route has, or none that could be read.
const OTHER: &str = "other";

/// Counts requests; cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    metrics: Metrics,
    in_flight: Gauge,
}

impl Requests {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            in_flight: metrics.gauge(&series::HTTP_IN_FLIGHT, Vec::new()),
            metrics: metrics.clone(),
        }
    }

    /// Counts an error answer to a request whose head could not be read: it has no route and no method, and nothing is known of its time.
    pub(super) fn count_unread(&self, error: &ApiError) {
        let labels = labels(UNMATCHED, OTHER, error.status().as_str());
        self.metrics
            .counter(&series::HTTP_REQUESTS, labels)
            .increment(1);
        self.count_refusal(error.problem().code);
    }

    fn count_refusal(&self, code: &str) {
        let labels = vec![("code", code.to_owned())];
        self.metrics
            .counter(&series::HTTP_REFUSALS, labels)
            .increment(1);
    }

    fn begin(&self, request: &Request) -> Measured {
        self.in_flight.increment(1);
        let route = request.extensions().get::<MatchedPath>();
        Measured {
            requests: self.clone(),
            route: route.map_or(UNMATCHED, MatchedPath::as_str).to_owned(),
            method: method_name(request.method()),
            started: Instant::now(),
            answered: false,
        }
    }
}

/// Measures the time to the head of the answer: a stream goes on behind it.
pub(super) async fn measure(
    State(requests): State<Requests>,
    request: Request,
    next: Next,
) -> Response {
    let mut measured = requests.begin(&request);
    let response = next.run(request).await;
    measured.end(&response);
    response
}

/// A request whose answer has not begun. Dropped before that, it counts as aborted.
struct Measured {
    requests: Requests,
    route: String,
    method: &'static str,
    started: Instant,
    answered: bool,
}

impl Measured {
    fn end(&mut self, response: &Response) {
        self.answered = true;
        traces::end_request(response.status().as_u16());
        let (metrics, labels) = (
            &self.requests.metrics,
            self.labels(response.status().as_str()),
        );
        metrics
            .counter(&series::HTTP_REQUESTS, labels.clone())
            .increment(1);
        let seconds = self.started.elapsed().as_secs_f64();
        metrics
            .histogram(&series::HTTP_SECONDS, labels)
            .record(seconds);
        if let Some(ErrorCode(code)) = response.extensions().get() {
            self.requests.count_refusal(code);
        }
    }

    fn labels(&self, status: &str) -> Vec<(&'static str, String)> {
        labels(&self.route, self.method, status)
    }
}

fn labels(route: &str, method: &str, status: &str) -> Vec<(&'static str, String)> {
    vec![
        ("route", route.to_owned()),
        ("method", method.to_owned()),
        ("status", status.to_owned()),
    ]
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.requests.in_flight.decrement(1);
        if !self.answered {
            let labels = self.labels("aborted");
            let aborted = self
                .requests
                .metrics
                .counter(&series::HTTP_REQUESTS, labels);
            aborted.increment(1);
        }
    }
}

/// The method, or `other`: a client may send any word.
pub(super) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let known = KNOWN.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or(OTHER)
}

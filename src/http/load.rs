//! Bounds on the work of all requests: how many are answered at once, how long each may take, and which go first.

use std::time::Duration;

use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    extract::{Request, State},
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};

use super::error::{ApiError, Problem};
use crate::serve::Priority;

/// Seconds after which a caller no longer waits.
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
/// `interactive` or `bulk`.
const PRIORITY: HeaderName = HeaderName::from_static("x-kith-priority");

/// Refuses requests beyond `max` at once with 429, before anything of them is read.
pub(super) fn limit_requests<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    max: usize,
) -> Router<S> {
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(async |_: BoxError| {
            let message =
                "the server answers server.max_requests requests already: retry in a moment";
            ApiError::Overloaded(Problem::new("overloaded", message))
        }))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(max));
    routes.layer(layers)
}

/// Gives a request up after `longest`, or after the caller's `x-request-timeout` if that is shorter. What it left in queues leaves them.
pub(super) async fn limit_time(
    State(longest): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let limit = match requested_timeout(request.headers()) {
        Ok(requested) => requested.map_or(longest, |requested| requested.min(longest)),
        Err(error) => return error.into_response(),
    };
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "the request took longer than {} seconds (server.timeout_seconds, or x-request-timeout): retry, with less in one request",
                limit.as_secs_f64()
            );
            ApiError::Timeout(Problem::new("timeout", message)).into_response()
        }
    }
}

fn requested_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(&TIMEOUT) else {
        return Ok(None);
    };
    let seconds = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let positive = seconds.filter(|seconds: &f64| *seconds > 0.0);
    let duration = positive.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Less than a nanosecond is no wait at all, but a number above 0.
    duration
        .map(|time| Some(time.max(Duration::from_nanos(1))))
        .ok_or_else(|| {
            let message = "this header must be a number of seconds above 0";
            ApiError::invalid("invalid_header", TIMEOUT.as_str(), message)
        })
}

/// The class that a caller asks for; `None`: by the size of the request.
pub(super) fn priority(headers: &HeaderMap) -> Result<Option<Priority>, ApiError> {
    match headers.get(&PRIORITY).map(|value| value.as_bytes()) {
        None => Ok(None),
        Some(b"interactive") => Ok(Some(Priority::Interactive)),
        Some(b"bulk") => Ok(Some(Priority::Bulk)),
        Some(_) => {
            let message = "this header must be interactive or bulk";
            Err(ApiError::invalid(
                "invalid_header",
                PRIORITY.as_str(),
                message,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout_of(text: &str) -> Result<Option<Duration>, ApiError> {
        requested_timeout(&HeaderMap::from_iter([(TIMEOUT, text.parse().unwrap())]))
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds_above_0() {
        assert_eq!(requested_timeout(&HeaderMap::new()), Ok(None));
        assert_eq!(timeout_of("1.5"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(timeout_of("1e-99"), Ok(Some(Duration::from_nanos(1))));
        for bad in ["0", "-1", "soon", "inf", "NaN", "1e300", ""] {
            let error = timeout_of(bad).unwrap_err();
            assert_eq!(
                error.problem().param.as_deref(),
                Some("x-request-timeout"),
                "{bad}"
            );
        }
    }
}

//! Refuses query parameters on routes that read none, where they would be ignored silently.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, text::quoted};

/// The routes whose handlers read the query. They refuse unknown parameters themselves.
const ROUTES_WITH_QUERY: &[(Method, &str)] = &[
    (Method::POST, "/v1/embeddings"),
    (Method::GET, "/v1/images"),
    (Method::GET, "/v1/pairs"),
    (Method::GET, "/v1/training/metrics"),
    (Method::GET, "/v1/events"),
    (Method::POST, "/v1/checkpoints"),
];

/// The methods that routes have.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// Refuses a query on any other route.
pub(super) async fn check_query(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if query.is_empty() || reads_query(&request) {
        return next.run(request).await;
    }
    let field = query.split(['=', '&']).next().unwrap_or_default();
    let message = format!(
        "this route has no query parameters, but {} was sent: leave it out",
        quoted(field)
    );
    ApiError::invalid("invalid_parameter", field, message).into_response()
}

fn reads_query(request: &Request) -> bool {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // There is no such route: 404 is the better answer.
        return true;
    };
    if !METHODS.contains(request.method()) {
        // No route has such a method: 405 is the better answer.
        return true;
    }
    // HEAD runs the handler of GET.
    let method = if request.method() == Method::HEAD {
        &Method::GET
    } else {
        request.method()
    };
    ROUTES_WITH_QUERY
        .iter()
        .any(|(with_query, route)| with_query == method && *route == path.as_str())
}

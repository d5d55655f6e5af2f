//! Query fields that a route does not read are refused: a choice that is silently ignored is a wrong answer.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, words::quoted};

/// The routes whose handlers read the query, and refuse what they do not know of it. All others take none.
const READERS: &[(Method, &str)] = &[
    (Method::POST, "/v1/embeddings"),
    (Method::GET, "/v1/images"),
    (Method::GET, "/v1/pairs"),
    (Method::GET, "/v1/training/metrics"),
    (Method::POST, "/v1/checkpoints"),
];

/// Refuses a query where none is read.
pub(super) async fn refuse_unread(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if query.is_empty() || reads(&request) {
        return next.run(request).await;
    }
    let field = query.split(['=', '&']).next().unwrap_or_default();
    let message = format!(
        "this route reads no query, and there is {}: leave it out",
        quoted(field)
    );
    ApiError::invalid("invalid_parameter", field, message).into_response()
}

fn reads(request: &Request) -> bool {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // No such route: that is the answer.
        return true;
    };
    // The answer to HEAD is made as GET's.
    let method = if request.method() == Method::HEAD {
        &Method::GET
    } else {
        request.method()
    };
    READERS
        .iter()
        .any(|(reader, at)| reader == method && *at == path.as_str())
}

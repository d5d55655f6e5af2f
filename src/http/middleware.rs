//! What surrounds every route: request id, log span, error shape, time limit, panics.
//! Must never know: routes.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, StatusCode, header::CONTENT_LENGTH},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};

use super::{
    budget::{Budget, bound},
    error::{ApiError, Shaped},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the layers around `routes`, the innermost first.
pub(super) fn surround(routes: Router, budget: Budget, timeout: Duration) -> Router {
    routes
        .layer(from_fn_with_state(budget, bound))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            timeout,
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(map_response(shape))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get(&REQUEST_ID);
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        id = id.and_then(|id| id.to_str().ok()),
    )
}

/// Gives the documented shape to errors that a layer made from a bare status; its other headers (`allow`) stay.
async fn shape(response: Response) -> Response {
    if response.extensions().get::<Shaped>().is_some() {
        return response;
    }
    let Some(error) = ApiError::of_status(response.status()) else {
        return response;
    };
    let (mut parts, body) = error.into_response().into_parts();
    let mut headers = response.into_parts().0.headers;
    headers.remove(CONTENT_LENGTH);
    for (name, value) in &parts.headers {
        headers.insert(name, value.clone());
    }
    parts.headers = headers;
    Response::from_parts(parts, body)
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| cause.downcast_ref::<String>().cloned());
    ApiError::internal(format!("panic: {}", text.unwrap_or_default())).into_response()
}

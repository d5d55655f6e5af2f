//! What surrounds every route: request id, log, error shape, who may ask, time limit, bounds of the body, panics.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state, map_request, map_response},
    response::{IntoResponse, Response},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, CorsLayer},
    decompression::RequestDecompressionLayer,
    request_id::{PropagateRequestIdLayer, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};

use super::{
    encoding::check_encoding,
    error::{ApiError, Shaped},
    incoming::{Bounds, bound_body, check_length},
    origin::{Allowed, guard},
    request_id::{MakeId, REQUEST_ID, keep_plain},
    words::bounded,
};
use crate::config::ServerConfig;

/// Most bytes of a path in the log.
const MAX_PATH: usize = 256;

/// Puts the layers around `routes`, the innermost first.
pub(super) fn apply_layers(routes: Router, bounds: Bounds, server: &ServerConfig) -> Router {
    let timeout = Duration::from_secs(server.timeout_seconds);
    let routes = routes
        // The bounds below count all bodies, those of forms and streams too.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(bounds.clone(), bound_body))
        .layer(RequestDecompressionLayer::new())
        .layer(from_fn(check_encoding))
        .layer(from_fn_with_state(bounds, check_length))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            timeout,
        ));
    let routes = match cors(&server.allowed_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes
        .layer(from_fn_with_state(Allowed::new(server), guard))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(map_response(shape))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeId))
        .layer(map_request(async |request: Request| keep_plain(request)))
}

/// Lets the pages of listed sites read the answers. Without any there is nothing to tell a browser.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins = origins.iter();
    let origins = origins.filter_map(|origin| origin.trim_end_matches('/').parse().ok());
    let origins: Vec<HeaderValue> = origins.collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, header::LOCATION, header::ETAG]);
    Some(layer)
}

fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get(&REQUEST_ID);
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = bounded(request.uri().path(), MAX_PATH),
        id = id.and_then(|id| id.to_str().ok()),
    )
}

/// Gives the documented shape to errors that a layer made from a bare status; its other headers (`allow`) stay. Refusals are logged here,
/// under the request's id.
async fn shape(response: Response) -> Response {
    let response = shaped(response);
    let status = response.status();
    if status.is_client_error()
        && let Some(Shaped(code)) = response.extensions().get()
    {
        tracing::info!(status = status.as_u16(), code, "refused");
    }
    response
}

fn shaped(response: Response) -> Response {
    if response.extensions().get::<Shaped>().is_some() {
        return response;
    }
    let Some(error) = ApiError::of_status(response.status()) else {
        return response;
    };
    let (mut parts, body) = error.into_response().into_parts();
    let mut headers = response.into_parts().0.headers;
    headers.remove(header::CONTENT_LENGTH);
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

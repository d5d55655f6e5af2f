//! The layers around all routes: request id, log, security headers, error shape, origin check, keys, figures, timeout, limits of the body, panics.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    middleware::{from_fn, from_fn_with_state, map_request, map_response},
    response::{IntoResponse, Response},
};
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{Predicate, SizeAbove},
    },
    cors::{AllowHeaders, CorsLayer},
    decompression::RequestDecompressionLayer,
    request_id::{PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};

use super::{
    auth::{Guard, check_key},
    body_limits::{BodyLimits, check_length, limit_body},
    encoding::check_encoding,
    error::{ApiError, ErrorCode},
    load::limit_time,
    measure::{Requests, measure, method_name},
    metered_body::meter_body,
    origin::{AllowedOrigins, check_origin},
    request_id::{MakeId, REQUEST_ID, remove_invalid},
    security_headers::add_security_headers,
    text::truncated,
};
use crate::{config::ServerConfig, telemetry::traces};

/// Bytes from which on an answer is compressed for a client that asks for it.
const MIN_COMPRESSED: u64 = 1024;

/// Most bytes of a path in the log.
const MAX_PATH: usize = 256;

/// Adds the layers to `routes`. The first layer here is the innermost.
pub(super) fn apply_layers(
    routes: Router,
    limits: BodyLimits,
    guard: Guard,
    requests: Requests,
    server: &ServerConfig,
) -> Router {
    let timeout = Duration::from_secs(server.timeout_seconds);
    let routes = routes
        // `limit_body` covers all bodies, those of forms and streams included.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(meter_body))
        .layer(from_fn_with_state(limits.clone(), limit_body))
        .layer(RequestDecompressionLayer::new())
        .layer(from_fn(check_encoding))
        .layer(from_fn_with_state(limits, check_length))
        .layer(from_fn_with_state(timeout, limit_time))
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                .compress_when(SizeAbove::new(MIN_COMPRESSED).and(is_json)),
        )
        // Inside CORS: a preflight has no key, and a page may read why its key is refused.
        .layer(from_fn_with_state(guard, check_key));
    let routes = match cors(&server.allowed_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes
        .layer(from_fn_with_state(
            AllowedOrigins::new(server),
            check_origin,
        ))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(map_response(shape_error))
        .layer(map_response(add_security_headers))
        .layer(from_fn_with_state(requests, measure))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(request_span))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeId))
        .layer(map_request(async |request: Request| {
            remove_invalid(request)
        }))
}

/// Whether an answer is worth compressing: images are compressed already, and a file is sent as it is, with its length and ranges.
fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let media = headers.get(header::CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(b"application/json"))
}

/// Lets pages of the allowed origins read the answers; `None` if there are no such origins.
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
        .expose_headers([
            REQUEST_ID,
            header::LOCATION,
            header::ETAG,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
        ]);
    Some(layer)
}

fn request_span(request: &Request) -> tracing::Span {
    let headers = request.headers();
    let id = headers.get(&REQUEST_ID);
    let span = tracing::info_span!(
        target: traces::REQUEST,
        "request",
        method = %request.method(),
        path = truncated(request.uri().path(), MAX_PATH),
        id = id.and_then(|id| id.to_str().ok()),
        // Its name, once it is known to be valid.
        key = tracing::field::Empty,
        // Where traces are on.
        trace_id = tracing::field::Empty,
        otel.kind = tracing::field::Empty,
    );
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map(MatchedPath::as_str);
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let caller = traces::Caller {
        traceparent: header("traceparent"),
        tracestate: header("tracestate"),
    };
    traces::begin_request(&span, method_name(request.method()), route, caller);
    span
}

/// Gives an error response the documented shape, and logs client errors under the request's id.
async fn shape_error(response: Response) -> Response {
    let response = with_document(response);
    let status = response.status();
    if status.is_client_error()
        && let Some(ErrorCode(code)) = response.extensions().get()
    {
        tracing::info!(status = status.as_u16(), code, "refused");
    }
    response
}

/// An error response that a layer made from a bare status gets the JSON document; its other headers, such as `allow`, stay.
fn with_document(response: Response) -> Response {
    if response.extensions().get::<ErrorCode>().is_some() {
        return response;
    }
    let Some(error) = ApiError::from_status(response.status()) else {
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

fn panic_response(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| cause.downcast_ref::<String>().cloned());
    ApiError::internal(format!("panic: {}", text.unwrap_or_default())).into_response()
}

//! `GET /openapi.json`: the interface as a document (OpenAPI 3.1), made from the handlers' own attributes and types; and `GET /docs`, a page
//! that shows it. Handlers name what is theirs alone. What the layers around them do is added to all operations here.

mod answers;
mod operations;
mod page;
mod schemas;
mod value;

use axum::{
    Extension,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{context::Context, error::ErrorDocument};
use crate::app::App;

/// What is said once about the whole interface.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "kith",
        description = "Image embeddings that keep learning from the pairs you post.\n\nAn unknown field or query parameter is refused by name. `null` is the \
                       same as leaving a field out. Bodies may be compressed with gzip or zstd (`content-encoding`), and JSON answers are where \
                       `accept-encoding` allows it. Limits are settings of the server.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorDocument)),
    tags(
        (name = "embeddings", description = "An image in, a vector out."),
        (name = "models", description = "The names that can be asked for."),
        (name = "images", description = "Stored images, identified by the SHA-256 of their bytes."),
        (name = "search", description = "The stored images nearest to an image."),
        (name = "map", description = "The stored images in two dimensions."),
        (name = "pairs", description = "Two images that belong together: what the encoder learns from."),
        (name = "training", description = "How learning goes."),
        (name = "checkpoints", description = "Snapshots of the encoder and of its training."),
        (name = "aliases", description = "Names that stand for a checkpoint."),
        (name = "events", description = "What happens, as it happens."),
        (name = "history", description = "How the server was."),
        (name = "operations", description = "For supervisors, monitoring and people."),
    )
)]
struct Base;

/// The document before any route is added.
pub(super) fn base() -> openapi::OpenApi {
    Base::openapi()
}

/// The document for a server with keys and for one without; cheap to clone.
#[derive(Clone)]
pub(super) struct Documents {
    with_keys: Bytes,
    without_keys: Bytes,
}

impl Documents {
    /// Completes `api`, which the routers made. `open_metrics`: whether `/metrics` needs no key.
    pub(super) fn new(api: &openapi::OpenApi, open_metrics: bool) -> Self {
        let document = |keys| {
            let mut document = serde_json::json!(api);
            schemas::complete(&mut document);
            operations::complete(&mut document, keys, open_metrics);
            Bytes::from(document.to_string())
        };
        Self {
            with_keys: document(true),
            without_keys: document(false),
        }
    }
}

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(get_document))
        .routes(routes!(page::get_page))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
async fn get_document(
    State(app): State<App>,
    Extension(documents): Extension<Documents>,
) -> Response {
    let document = if app.keys.required() {
        documents.with_keys
    } else {
        documents.without_keys
    };
    ([(CONTENT_TYPE, "application/json")], document).into_response()
}

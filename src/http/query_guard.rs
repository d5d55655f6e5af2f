//! Refuses query parameters on routes that read none, where they would be ignored silently. Which routes read the query is known from the
//! document of the interface.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use super::{error::ApiError, text::quoted};

/// The methods of each route, and whether their handlers read the query; cheap to clone. Such a handler refuses unknown parameters itself.
#[derive(Clone)]
pub(super) struct Operations(Arc<HashMap<String, Vec<(Method, bool)>>>);

impl Operations {
    /// The operations of `api`, which the routers made.
    pub(super) fn new(api: &OpenApi) -> Self {
        let paths = json!(api)["paths"].take();
        let paths = paths.as_object().into_iter().flatten();
        let operations = paths.map(|(path, item)| {
            let item = item.as_object().into_iter().flatten();
            let methods = item.filter_map(|(method, operation)| {
                let method = method.to_ascii_uppercase().parse().ok()?;
                Some((method, reads_query(operation)))
            });
            (path.clone(), methods.collect())
        });
        Self(Arc::new(operations.collect()))
    }

    /// Whether the handler of `request` exists and reads no query. Where there is no such route or method, 404 or 405 is the better answer.
    fn refuse_query(&self, request: &Request) -> bool {
        // HEAD runs the handler of GET.
        let method = match request.method() {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let path = request.extensions().get::<MatchedPath>();
        let methods = path.and_then(|path| self.0.get(path.as_str()));
        let mut methods = methods.into_iter().flatten();
        methods.any(|(own, reads_query)| own == method && !reads_query)
    }
}

fn reads_query(operation: &Value) -> bool {
    let parameters = operation["parameters"].as_array();
    let mut parameters = parameters.into_iter().flatten();
    parameters.any(|parameter| parameter["in"] == "query")
}

/// Refuses a query on a route that reads none.
pub(super) async fn check_query(
    State(operations): State<Operations>,
    request: Request,
    next: Next,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if query.is_empty() || !operations.refuse_query(&request) {
        return next.run(request).await;
    }
    let field = query.split(['=', '&']).next().unwrap_or_default();
    let message = format!(
        "this route has no query parameters, but {} was sent: leave it out",
        quoted(field)
    );
    ApiError::invalid("invalid_parameter", field, message).into_response()
}

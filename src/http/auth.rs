//! Checks the key of a request before anything of its body is read, and writes a line for each act of an administrator.

use axum::{
    body::HttpBody,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    access::{Access, access},
    error::{ApiError, Problem},
    request_id::REQUEST_ID,
    text::truncated,
};
use crate::keys::{Caller, KeyError, Keys, Scope};

/// Most bytes of a path in the log.
const MAX_PATH: usize = 256;

/// What requests are checked against; cheap to clone.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) keys: Keys,
    /// Whether everybody may read `/metrics`.
    pub(super) open_metrics: bool,
}

/// Answers 401 to a request without a valid key, 403 to one whose key may not use the route, and 429 to one whose key is used up. Handlers find the [`Caller`] in the extensions.
pub(super) async fn check_key(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    // An unknown route has nothing to protect: 404 is the better answer.
    let needed = path.map_or(Access::Open, |path| {
        access(request.method(), path.as_str(), guard.open_metrics)
    });
    let Access::Scope(scope) = needed else {
        return next.run(request).await;
    };
    let caller = match find_caller(&guard.keys, request.headers()) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    // Nothing behind this may store or show the key.
    request.headers_mut().remove(AUTHORIZATION);
    if let Some(caller) = &caller {
        tracing::Span::current().record("key", caller.name());
        request.extensions_mut().insert(caller.clone());
    }
    let mut act = (scope == Scope::Admin).then(|| Act::new(&request, caller.clone()));
    let admitted = match &caller {
        Some(caller) => admit(caller, scope, &request),
        None => Ok(()),
    };
    let response = match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(act) = &mut act {
        act.status = Some(response.status());
    }
    response
}

/// The holder of the request's key; `None` on a server without keys.
fn find_caller(keys: &Keys, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    if !keys.required() {
        return Ok(None);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(KeyError::Missing.into());
    };
    let key = value.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(keys.authenticate(key)?)),
        _ => {
            let message = "the authorization header is not \"Bearer KEY\", sent once";
            Err(ApiError::Unauthorized(Problem::new("invalid_key", message)))
        }
    }
}

/// Whether the caller may send this request now. Counts it, and the beginning of its body.
fn admit(caller: &Caller, needed: Scope, request: &Request) -> Result<(), ApiError> {
    caller.count_request()?;
    check_scope(caller, needed)?;
    if !request.body().is_end_stream() {
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
        caller.begin_body(declared)?;
    }
    Ok(())
}

fn check_scope(caller: &Caller, needed: Scope) -> Result<(), ApiError> {
    if caller.may(needed) {
        return Ok(());
    }
    let message = format!(
        "the key \"{}\" has the scope {}, and this needs {}: use another key",
        caller.name(),
        name(caller.scope()),
        name(needed)
    );
    Err(ApiError::Forbidden(Problem::new(
        "insufficient_scope",
        message,
    )))
}

fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::Embed => "embed",
        Scope::Write => "write",
        Scope::Admin => "admin",
    }
}

/// An act of an administrator, which is logged when it is answered, and also when the client leaves before that.
struct Act {
    caller: Option<Caller>,
    method: Method,
    path: String,
    request_id: String,
    /// `None`: it has no answer.
    status: Option<StatusCode>,
}

impl Act {
    fn new(request: &Request, caller: Option<Caller>) -> Self {
        let id = request.headers().get(&REQUEST_ID);
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        Self {
            caller,
            method: request.method().clone(),
            path: truncated(request.uri().path(), MAX_PATH),
            request_id: id.to_owned(),
            status: None,
        }
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        let caller = self.caller.as_ref();
        tracing::info!(
            target: "audit",
            key_id = caller.map(|caller| tracing::field::display(caller.id())),
            key = caller.map(Caller::name),
            method = %self.method,
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            request_id = self.request_id,
            "an act of an administrator"
        );
    }
}

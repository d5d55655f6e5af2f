//! What each route asks of its caller, in one table. A route that is missing here needs the scope `admin`.

use axum::http::Method;

use crate::keys::Scope;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, with or without a key.
    Open,
    /// Holders of a key with this scope, or one that includes it.
    Scope(Scope),
}

/// What the route `path`, as the router spells it, asks of a caller of `method`.
/// `open_metrics`: the settings let everybody read `/metrics`.
pub(super) fn access(method: &Method, path: &str, open_metrics: bool) -> Access {
    use Access::Open;
    const EMBED: Access = Access::Scope(Scope::Embed);
    const WRITE: Access = Access::Scope(Scope::Write);
    const ADMIN: Access = Access::Scope(Scope::Admin);
    // HEAD runs the handler of GET.
    let method = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    match (method, path) {
        // For supervisors, load balancers and people: nothing of what is stored.
        ("GET", "/" | "/dashboard/map" | "/docs" | "/healthz" | "/openapi.json" | "/readyz") => {
            Open
        }

        // Figures only, but they tell how much is stored and asked.
        ("GET", "/metrics") if open_metrics => Open,
        ("GET", "/metrics") => EMBED,

        // Vectors, and the names that can be asked for.
        ("POST", "/v1/embeddings" | "/v2/embed") => EMBED,
        ("GET", "/v1/models" | "/v1/models/{id}" | "/v1/aliases") => EMBED,

        // Ids, scores and groups of stored images; their bytes need more.
        ("GET" | "POST", "/v1/search") => EMBED,

        // Images and pairs are others' data: reading them takes as much as storing them.
        (
            "GET" | "POST" | "DELETE",
            "/v1/images"
            | "/v1/images/{id}"
            | "/v1/images/{id}/content"
            | "/v1/images/{id}/thumbnail"
            | "/v1/pairs"
            | "/v1/pairs/{id}"
            | "/v1/map"
            | "/v1/map/changes",
        ) => WRITE,
        // Those who teach see how learning goes.
        (
            "GET",
            "/v1/training"
            | "/v1/training/metrics"
            | "/v1/events"
            | "/v1/history"
            | "/v1/checkpoints"
            | "/v1/checkpoints/{id}",
        ) => WRITE,

        // Changes of training, checkpoints and aliases, and downloads of a checkpoint, which is the model itself.
        _ => ADMIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_nobody_entered_needs_admin() {
        let admin = Access::Scope(Scope::Admin);
        assert_eq!(access(&Method::POST, "/v1/new", false), admin);
        assert_eq!(access(&Method::PUT, "/v1/pairs", false), admin);
        assert_eq!(access(&Method::POST, "/healthz", false), admin);
        assert_eq!(access(&Method::HEAD, "/healthz", false), Access::Open);
    }
}

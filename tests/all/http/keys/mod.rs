//! API keys: which scope each route needs, how keys are refused, and what is logged about them.

mod limits;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use kith::{
    app::check_exposure,
    keys::{self, KeyRow, NewKey, Scope, Secret},
};
use serde_json::json;

use crate::{
    document::Document,
    support::{Reply, Served, data_uri, png},
};

const SCOPES: [Scope; 3] = [Scope::Embed, Scope::Write, Scope::Admin];

/// Every route with the scope that it needs; `None`: everybody may.
const ROUTES: &[(&str, &str, Option<Scope>)] = &[
    ("GET", "/", None),
    ("GET", "/dashboard/map", None),
    ("GET", "/docs", None),
    ("GET", "/openapi.json", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("HEAD", "/readyz", None),
    ("GET", "/metrics", Some(Scope::Embed)),
    ("POST", "/v1/embeddings", Some(Scope::Embed)),
    ("POST", "/v2/embed", Some(Scope::Embed)),
    ("GET", "/v1/models", Some(Scope::Embed)),
    ("HEAD", "/v1/models", Some(Scope::Embed)),
    ("GET", "/v1/models/kith", Some(Scope::Embed)),
    ("GET", "/v1/aliases", Some(Scope::Embed)),
    ("POST", "/v1/search", Some(Scope::Embed)),
    ("GET", "/v1/search", Some(Scope::Embed)),
    ("POST", "/v1/images", Some(Scope::Write)),
    ("GET", "/v1/images", Some(Scope::Write)),
    ("GET", "/v1/images/7", Some(Scope::Write)),
    ("GET", "/v1/images/7/content", Some(Scope::Write)),
    ("GET", "/v1/images/7/thumbnail", Some(Scope::Write)),
    ("DELETE", "/v1/images/7", Some(Scope::Write)),
    ("GET", "/v1/map", Some(Scope::Write)),
    ("GET", "/v1/map/changes", Some(Scope::Write)),
    ("POST", "/v1/pairs", Some(Scope::Write)),
    ("GET", "/v1/pairs", Some(Scope::Write)),
    ("GET", "/v1/pairs/7", Some(Scope::Write)),
    ("DELETE", "/v1/pairs/7", Some(Scope::Write)),
    ("GET", "/v1/training", Some(Scope::Write)),
    ("GET", "/v1/training/metrics", Some(Scope::Write)),
    ("GET", "/v1/events", Some(Scope::Write)),
    ("GET", "/v1/history", Some(Scope::Write)),
    ("PATCH", "/v1/training", Some(Scope::Admin)),
    ("GET", "/v1/checkpoints", Some(Scope::Write)),
    ("GET", "/v1/checkpoints/7", Some(Scope::Write)),
    ("POST", "/v1/checkpoints", Some(Scope::Admin)),
    ("PATCH", "/v1/checkpoints/7", Some(Scope::Admin)),
    ("DELETE", "/v1/checkpoints/7", Some(Scope::Admin)),
    ("POST", "/v1/checkpoints/7/promote", Some(Scope::Admin)),
    ("POST", "/v1/checkpoints/auto", Some(Scope::Admin)),
    ("GET", "/v1/checkpoints/7/files/a", Some(Scope::Admin)),
    ("PUT", "/v1/aliases/a", Some(Scope::Admin)),
    ("DELETE", "/v1/aliases/a", Some(Scope::Admin)),
    // No such method on the route: as for one that nobody entered in the table.
    ("PUT", "/v1/embeddings", Some(Scope::Admin)),
    ("GET", "/nowhere", None),
];

impl Served {
    /// A new key, which the server knows when this returns.
    pub(super) async fn key(&self, scope: Scope) -> (KeyRow, Secret) {
        let name = format!("{scope:?}-{}", Timestamp::now().as_nanosecond());
        self.key_until(&name, scope, None).await
    }

    async fn key_until(
        &self,
        name: &str,
        scope: Scope,
        expires_at: Option<Timestamp>,
    ) -> (KeyRow, Secret) {
        let new = NewKey {
            name: name.to_owned(),
            scope,
            expires_at,
        };
        let made = keys::create(&self.app.db, new).await.unwrap();
        self.app.keys.refresh().await.unwrap();
        made
    }

    async fn revoke(&self, key: &KeyRow) {
        keys::revoke(&self.app.db, &key.id.to_string())
            .await
            .unwrap();
        self.app.keys.refresh().await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, key: Option<&Secret>) -> Reply {
        self.send(with_key(method, path, key, Body::empty())).await
    }
}

pub(super) fn with_key(
    method: &str,
    path: &str,
    key: Option<&Secret>,
    body: Body,
) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {}", key.reveal()));
    }
    request.body(body).unwrap()
}

/// Asserts the documented shape of a refusal, and gives (type, code). An answer to HEAD has no body, and is not given here.
fn refusal(reply: &Reply, status: StatusCode) -> (String, String) {
    let (code, param) = reply.error(status);
    assert_eq!(param, None);
    let kind = reply.json()["error"]["type"].as_str().unwrap().to_owned();
    (kind, code)
}

#[tokio::test]
async fn every_operation_of_the_document_is_in_this_table_and_asks_for_its_scope() {
    let served = Served::start(&[]).await;
    served.key(Scope::Admin).await;
    let reply = served.ask("GET", "/openapi.json", None).await;
    let document = Document::new(reply.json());
    let operations = document.operations();
    assert!(operations.len() > 20, "{operations:?}");
    let mut entered = 0;
    for (method, path) in operations {
        let row = ROUTES.iter().find(|(known, row, _)| {
            *known == method && document.pattern(row).as_deref() == Some(&path)
        });
        let (_, _, scope) =
            row.unwrap_or_else(|| panic!("{method} {path}: say here who may use it"));
        let needed = document.operation(&method, &path)["security"][0]["bearer"][0].clone();
        assert_eq!(needed, json!(scope), "{method} {path}");
        entered += 1;
    }
    // The other rows: two of HEAD, one without such a method, one without such a path.
    assert_eq!(entered, ROUTES.len() - 4);
}

#[tokio::test]
async fn each_scope_reaches_its_routes_and_no_others() {
    let served = Served::start(&[]).await;
    let mut keys = Vec::new();
    for scope in SCOPES {
        keys.push((scope, served.key(scope).await.1));
    }
    for (method, path, needed) in ROUTES {
        let bare = served.ask(method, path, None).await;
        if needed.is_some() && *method != "HEAD" {
            let refused = refusal(&bare, StatusCode::UNAUTHORIZED);
            let expected = ("authentication_error".to_owned(), "missing_key".to_owned());
            assert_eq!(refused, expected, "{method} {path}");
            assert_eq!(bare.header("www-authenticate"), Some("Bearer"));
        } else {
            let refused = bare.status == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, needed.is_some(), "{method} {path}");
        }
        for (scope, key) in &keys {
            let reply = served.ask(method, path, Some(key)).await;
            let answered = reply.status;
            assert_ne!(answered, StatusCode::UNAUTHORIZED, "{method} {path}");
            let allowed = needed.is_none_or(|needed| *scope >= needed);
            if allowed {
                assert_ne!(answered, StatusCode::FORBIDDEN, "{method} {path} {scope:?}");
            } else {
                let refused = refusal(&reply, StatusCode::FORBIDDEN);
                let expected = ("permission_error", "insufficient_scope");
                assert_eq!(
                    (refused.0.as_str(), refused.1.as_str()),
                    expected,
                    "{method} {path} {scope:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_key_embeds_and_a_wrong_one_does_not() {
    let served = Served::start(&[]).await;
    let (_, key) = served.key(Scope::Embed).await;
    let document = json!({"input": data_uri(&png(1))}).to_string();
    let ask = async |authorization: &[&str]| {
        let mut request = with_key("POST", "/v1/embeddings", None, Body::from(document.clone()));
        for value in authorization {
            let value = value.parse().unwrap();
            request.headers_mut().append("authorization", value);
        }
        served.send(request).await
    };
    let text = key.reveal();
    for good in [format!("Bearer {text}"), format!("bearer  {text}")] {
        let reply = ask(&[&good]).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    let (bearer, other) = (format!("Bearer {text}"), format!("Bearer {text}x"));
    for wrong in [
        vec![other.as_str()],
        vec![text],
        vec!["Basic a2l0aDo="],
        vec!["Bearer "],
        vec!["Bearer"],
        vec![bearer.as_str(), bearer.as_str()],
    ] {
        let reply = ask(&wrong).await;
        let refused = refusal(&reply, StatusCode::UNAUTHORIZED);
        assert_eq!(refused.1, "invalid_key", "{wrong:?}");
        assert!(!reply.text().contains(text));
    }
}

#[tokio::test]
async fn a_server_without_keys_ignores_what_clients_send_as_one() {
    let served = Served::start(&[]).await;
    let request = Request::get("/v1/models").header("authorization", "Bearer none");
    let reply = served.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_refused_request_is_not_read() {
    let served = Served::start(&[]).await;
    let (_, key) = served.key(Scope::Embed).await;
    for (key, status) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some(&key), StatusCode::FORBIDDEN),
    ] {
        let read = Arc::new(Mutex::new(false));
        let noted = read.clone();
        let body = stream::poll_fn(move |_| {
            *noted.lock().unwrap() = true;
            std::task::Poll::Ready(None::<Result<Bytes, io::Error>>)
        });
        let mut request = with_key("POST", "/v1/pairs", key, Body::from_stream(body));
        // More than is allowed: what a caller without a key learns is that it needs one.
        let huge = "999999999999".parse().unwrap();
        request.headers_mut().insert("content-length", huge);
        assert_eq!(served.send(request).await.status, status);
        assert!(!*read.lock().unwrap());
    }
}

#[tokio::test]
async fn an_expired_key_is_refused_as_such() {
    let served = Served::start(&[]).await;
    // A busy machine may take a while until the key is asked with.
    let soon = Timestamp::now() + SignedDuration::from_secs(3);
    let (_, key) = served.key_until("brief", Scope::Admin, Some(soon)).await;
    let reply = served.ask("GET", "/v1/models", Some(&key)).await;
    assert_eq!(reply.status, StatusCode::OK);
    let left = soon.duration_since(Timestamp::now()).unsigned_abs();
    tokio::time::sleep(left + Duration::from_millis(1)).await;
    let reply = served.ask("GET", "/v1/models", Some(&key)).await;
    let refused = refusal(&reply, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.1, "expired_key");
}

#[tokio::test]
async fn a_server_whose_last_key_is_revoked_does_not_become_open() {
    let served = Served::start(&[]).await;
    let (row, key) = served.key(Scope::Admin).await;
    served.revoke(&row).await;
    let revoked = async |served: &Served| {
        let reply = served.ask("GET", "/v1/images", Some(&key)).await;
        refusal(&reply, StatusCode::UNAUTHORIZED).1
    };
    let bare = served.ask("GET", "/v1/images", None).await;
    assert_eq!(refusal(&bare, StatusCode::UNAUTHORIZED).1, "missing_key");
    assert_eq!(revoked(&served).await, "invalid_key");
    // Not by a restart either, on an address that others reach.
    let served = served.restart(&["server.listen=0.0.0.0:0"]).await;
    check_exposure(&served.app.settings).await.unwrap();
    assert_eq!(revoked(&served).await, "invalid_key");
}

#[tokio::test]
async fn a_page_of_an_allowed_site_asks_first_without_a_key_and_reads_refusals() {
    let served = Served::start(&["server.allowed_origins=https://app.example.org"]).await;
    served.key(Scope::Admin).await;
    let ask = async |method: Method| {
        let request = Request::builder()
            .method(method)
            .uri("/v1/training")
            .header("host", "localhost:7700")
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization");
        served.send(request.body(Body::empty()).unwrap()).await
    };
    let preflight = ask(Method::OPTIONS).await;
    assert_eq!(preflight.status, StatusCode::OK);
    let headers = preflight.header("access-control-allow-headers");
    assert_eq!(headers, Some("authorization"));
    let refused = ask(Method::PATCH).await;
    refusal(&refused, StatusCode::UNAUTHORIZED);
    let origin = refused.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://app.example.org"));
}

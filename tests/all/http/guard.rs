//! Every route refuses web pages of other sites and host names that are not this server's; programs pass.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};

use crate::support::{Reply, Served, form, png};

/// Every route, those that only read too: a page must not see them either.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("POST", "/v1/images"),
    ("GET", "/v1/images"),
    ("POST", "/v1/pairs"),
    ("GET", "/v1/pairs"),
    ("DELETE", "/v1/pairs/7"),
    ("GET", "/v1/training"),
    ("PATCH", "/v1/training"),
    ("POST", "/v1/checkpoints"),
    ("GET", "/v1/checkpoints"),
    ("GET", "/nowhere"),
];

async fn ask(served: &Served, route: (&str, &str), headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(route.0).uri(route.1);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    served.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_page_of_another_site_reaches_no_route() {
    let served = Served::start(&[]).await;
    for route in ROUTES {
        for (headers, code) in [
            (
                vec![("host", "rebound.evil.example:7700")],
                "forbidden_host",
            ),
            (
                vec![
                    ("host", "localhost:7700"),
                    ("origin", "https://evil.example"),
                ],
                "forbidden_origin",
            ),
            (
                vec![("host", "localhost:7700"), ("origin", "null")],
                "forbidden_origin",
            ),
            (
                vec![
                    ("host", "localhost:7700"),
                    ("origin", "http://localhost:3000"),
                ],
                "forbidden_origin",
            ),
            (
                vec![("host", "localhost:7700"), ("sec-fetch-site", "cross-site")],
                "forbidden_origin",
            ),
            (
                vec![("host", "localhost:7700"), ("host", "evil.example")],
                "forbidden_header",
            ),
        ] {
            let reply = ask(&served, *route, &headers).await;
            let (got, _) = reply.error(StatusCode::FORBIDDEN);
            assert_eq!(got, code, "{route:?} {headers:?}");
        }
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_and_caches_to_leave_it_alone() {
    let served = Served::start(&["server.allowed_origins=https://app.example.org"]).await;
    let host = ("host", "localhost:7700");
    let page = ("origin", "https://app.example.org");
    let preflight = ("access-control-request-method", "PATCH");
    for (route, headers, status) in [
        (("GET", "/"), vec![host], 200),
        (("GET", "/nowhere"), vec![host], 404),
        (("PUT", "/healthz"), vec![host], 405),
        (("GET", "/healthz"), vec![("host", "evil.example")], 403),
        (
            ("POST", "/v1/pairs"),
            vec![host, ("content-length", "99999999999")],
            413,
        ),
        (
            ("OPTIONS", "/v1/training"),
            vec![host, page, preflight],
            200,
        ),
    ] {
        let reply = ask(&served, route, &headers).await;
        assert_eq!(reply.status.as_u16(), status, "{route:?}");
        let policy = "default-src 'none'; frame-ancestors 'none'";
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", policy),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{route:?}");
        }
    }
    let posted = served.post_as("/v1/images", "image/png", png(1)).await;
    let path = format!(
        "/v1/images/{}/content",
        posted.json()["id"].as_str().unwrap()
    );
    let content = served.get(&path).await;
    assert!(content.header("etag").is_some());
    assert_eq!(content.header("cache-control"), Some("private, no-cache"));
}

#[tokio::test]
async fn a_form_that_a_foreign_page_posts_stores_no_pair() {
    let served = Served::start(&[]).await;
    let (a, b) = (png(1), png(2));
    let (media, body) = form(&[("anchor", Some("a"), &a), ("positive", Some("b"), &b)]);
    let request = Request::post("/v1/pairs")
        .header("content-type", media)
        .header("host", "127.0.0.1:7700")
        .header("origin", "https://evil.example")
        .body(Body::from(body))
        .unwrap();
    served.send(request).await.error(StatusCode::FORBIDDEN);
    let stored = served.get("/v1/images").await.json();
    assert_eq!(stored["data"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn programs_own_pages_and_navigation_pass() {
    let served = Served::start(&[]).await;
    for headers in [
        vec![],
        vec![("host", "127.0.0.1:7700")],
        vec![("host", "[::ffff:127.0.0.1]:7700")],
        vec![
            ("host", "localhost:7700"),
            ("origin", "http://localhost:7700"),
            ("sec-fetch-site", "same-origin"),
        ],
        vec![
            ("host", "localhost:7700"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ],
    ] {
        let reply = ask(&served, ("GET", "/healthz"), &headers).await;
        assert_eq!(
            reply.status,
            StatusCode::OK,
            "{headers:?}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn allowed_hosts_and_origins_pass_with_cors_headers() {
    let served = Served::start(&[
        "server.allowed_hosts=kith.example.org",
        "server.allowed_origins=https://app.example.org",
    ])
    .await;
    let headers = [
        ("host", "kith.example.org"),
        ("origin", "https://app.example.org"),
        ("sec-fetch-site", "cross-site"),
    ];
    let reply = ask(&served, ("GET", "/healthz"), &headers).await;
    assert_eq!(reply.status, StatusCode::OK);
    let allowed = reply.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://app.example.org"));
    let mut preflight = headers.to_vec();
    preflight.push(("access-control-request-method", "PATCH"));
    let reply = ask(&served, ("OPTIONS", "/v1/training"), &preflight).await;
    assert_eq!(reply.status, StatusCode::OK);
}

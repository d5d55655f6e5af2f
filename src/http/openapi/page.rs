//! `GET /docs`: a page that shows the document and tries its operations. It is inside the program and asks nothing of other hosts.

use std::sync::LazyLock;

use axum::{
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = include_str!("page/index.html");
    page.replace("{style}", STYLE).replace("{script}", SCRIPT)
});

/// Nothing runs but the page's own script, and it talks to its own server only.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// A page that shows this document and tries its operations.
#[utoipa::path(get, path = "/docs", responses((status = 200, body = String, content_type = "text/html; charset=utf-8")))]
pub(super) async fn get_page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
    ];
    (headers, PAGE.as_str()).into_response()
}

//! `GET /docs`: a page that shows the document and tries its operations.

use std::sync::LazyLock;

use axum::response::Response;

use crate::http::html::{HtmlPage, Parts};

/// It talks to its own server only.
static PAGE: LazyLock<HtmlPage> = LazyLock::new(|| {
    HtmlPage::new(&Parts {
        html: include_str!("page/index.html"),
        style: include_str!("page/style.css"),
        script: include_str!("page/script.js"),
        policy: "connect-src 'self'; img-src data: blob:; frame-ancestors 'none'",
    })
});

/// A page that shows this document and tries its operations.
#[utoipa::path(get, path = "/docs", responses((status = 200, body = String, content_type = "text/html; charset=utf-8")))]
pub(super) async fn get_page() -> Response {
    PAGE.response()
}

//! `GET /`: the dashboard for a browser, the list of routes for others. `dashboard/` holds the sources of its two pages, and `npm run build` there
//! writes them here.

use std::sync::LazyLock;

use axum::{
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    html::{HtmlPage, Parts},
};

/// It talks to its own server only, and frames the map.
static PAGE: LazyLock<HtmlPage> = LazyLock::new(|| {
    HtmlPage::new(&Parts {
        html: include_str!("page.html"),
        style: include_str!("page.css"),
        script: include_str!("page.js"),
        policy: "connect-src 'self'; img-src data: blob:; frame-src 'self'; frame-ancestors 'none'",
    })
});

/// The points of the map. What draws them makes code as it runs: `sandbox` keeps it from the page around it, and it may connect nowhere.
static FRAME: LazyLock<String> =
    LazyLock::new(|| include_str!("frame.html").replace("{script}", include_str!("frame.js")));

const FRAME_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; worker-src blob:; \
                            img-src data: blob:; base-uri 'none'; form-action 'none'; sandbox allow-scripts; frame-ancestors 'self'";

const LIST: &str = concat!(
    "kith ",
    env!("CARGO_PKG_VERSION"),
    ": image embeddings that keep learning from the pairs you post\n\n",
    "GET  /                 in a browser: the dashboard\n",
    "POST /v1/embeddings    an image in, a vector out; try: curl THIS/v1/embeddings -H 'content-type: image/png' --data-binary @a.png\n",
    "POST /v2/embed         the same in Cohere's shape\n",
    "GET  /v1/models        the names that can be asked for; /v1/aliases gives checkpoints names, and tries candidates under them\n",
    "POST /v1/search        the stored images nearest to an image; GET says how many are embedded\n",
    "POST /v1/pairs         two images that belong together; try: curl THIS/v1/pairs -F anchor=@a.png -F positive=@b.png\n",
    "     /v1/images        stored images\n",
    "GET  /v1/training      the state of training; PATCH pauses and resumes it; /v1/training/metrics has its series\n",
    "POST /v1/checkpoints   a snapshot; GET lists them; POST /v1/checkpoints/ID/promote serves one\n",
    "GET  /v1/events        what happens, as server-sent events; /v1/history has how the server was\n",
    "GET  /metrics          figures of this server for Prometheus\n",
    "GET  /docs             the whole interface, to read and to try; /openapi.json is the document\n",
    "GET  /healthz /readyz  for supervisors and load balancers\n",
);

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(get_root))
        .routes(routes!(get_map_frame))
}

/// The dashboard, for a browser; a list of the routes as text for others.
#[utoipa::path(get, path = "/", responses((status = 200, content((String = "text/html; charset=utf-8"), (String = "text/plain; charset=utf-8")))))]
async fn get_root(headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|types| types.contains("text/html")) {
        PAGE.response()
    } else {
        LIST.into_response()
    }
}

/// The frame of the dashboard that draws the map. It holds no data.
#[utoipa::path(get, path = "/dashboard/map", responses((status = 200, body = String, content_type = "text/html; charset=utf-8")))]
async fn get_map_frame() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, FRAME_POLICY),
    ];
    (headers, FRAME.as_str()).into_response()
}

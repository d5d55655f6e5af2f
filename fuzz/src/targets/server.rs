//! A server with a tiny encoder in a temporary folder, asked without a socket.

use std::{convert::Infallible, sync::OnceLock};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header::CONTENT_TYPE},
};
use futures::stream;
use http_body_util::BodyExt;
use kith::{app::App, config::Settings};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// Bytes of a body that arrive together: lines and boundaries come in several pieces.
const PIECE: usize = 61;

/// One server for all inputs of a process.
pub(super) struct Server {
    runtime: Runtime,
    router: Router,
    _folder: TempDir,
}

impl Server {
    /// The server of this process, which the first call starts.
    pub(super) fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let data_dir = format!("storage.data_dir={}", folder.path().join("data").display());
        let sets = [
            data_dir.as_str(),
            "encoder.width=8",
            "encoder.side=32",
            "encoder.dim=16",
            "encoder.start=fresh",
            "training.enabled=false",
            "serving.threads=1",
            "serving.decode_threads=1",
            // No image of an input costs seconds.
            "limits.max_pixels=262144",
        ];
        let settings = Settings::from_layers(None, [], &sets.map(str::to_owned));
        let settings = settings.expect("these are settings");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("the system gives threads");
        let app = runtime.block_on(App::start(settings));
        let app = app.expect("an empty folder takes a server");
        Self {
            router: kith::http::router(app),
            runtime,
            _folder: folder,
        }
    }

    /// The answer to a POST: its status and its body. A failure of the server itself is a panic.
    pub(super) fn post(&self, path: &str, media: &str, body: &[u8]) -> (StatusCode, Vec<u8>) {
        let pieces: Vec<_> = body.chunks(PIECE).map(<[u8]>::to_vec).collect();
        let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, media)
            .body(Body::from_stream(stream::iter(pieces)))
            .expect("path and media type are valid");
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await;
            let (head, body) = answer.expect("the router has no error").into_parts();
            let body = body.collect().await.expect("an answer can be read");
            let body = body.to_bytes().to_vec();
            let text = String::from_utf8_lossy(&body);
            assert!(!head.status.is_server_error(), "{path}: {text}");
            (head.status, body)
        })
    }
}

//! Fixtures of the tests: generated images, and an app with a tiny encoder in a temporary folder.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_TYPE},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use kith::{
    app::App,
    checkpoint::{Label, Snapshot},
    config::Settings,
    types::CheckpointId,
};
use kith_nn::{Purpose, TowerOptimizer, Towers};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tower::ServiceExt;

use crate::document::Document;

/// Settings of a tiny encoder (width 8, side 32, 16 values) in `folder`, not training; `sets` come on top.
pub(crate) fn settings(folder: &TempDir, sets: &[&str]) -> Settings {
    let data_dir = format!("storage.data_dir={}", folder.path().join("data").display());
    let tiny = [
        data_dir.as_str(),
        "encoder.width=8",
        "encoder.side=32",
        "encoder.dim=16",
        "training.enabled=false",
        // Tests of search turn it on.
        "search.enabled=false",
        "training.threads=1",
        // Other tests keep the machine busy, and some of these wait for steps.
        "training.idle_class=false",
        // Tests send more at once than a busy machine answers soon.
        "serving.max_wait_ms=0",
        "serving.threads=1",
        "serving.decode_threads=1",
    ];
    let sets: Vec<String> = tiny.iter().chain(sets).map(ToString::to_string).collect();
    Settings::from_layers(None, [], &sets).unwrap()
}

/// An app in a temporary folder, and its routes.
pub(crate) struct Served {
    pub(crate) app: App,
    router: Router,
    folder: TempDir,
}

/// Starts an app in `folder` and stops it in order.
pub(crate) async fn start_and_stop(folder: &TempDir) {
    let app = App::start(settings(folder, &[])).await.unwrap();
    app.stop().await.unwrap();
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts the documented error shape, and gives (code, param).
    pub(crate) fn error(&self, status: StatusCode) -> (String, Option<String>) {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        let fields = json["error"].as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(json.as_object().unwrap().len(), 1);
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(!fields["message"].as_str().unwrap().is_empty());
        assert!(fields["type"].as_str().unwrap().ends_with("_error"));
        assert!(self.header("x-request-id").is_some());
        let param = fields["param"].as_str().map(str::to_owned);
        (fields["code"].as_str().unwrap().to_owned(), param)
    }
}

impl Served {
    /// Starts an app with the tiny encoder.
    pub(crate) async fn start(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = App::start(settings(&folder, sets)).await.unwrap();
        Self {
            router: kith::http::router(app.clone()),
            app,
            folder,
        }
    }

    /// Stops the app in order, and starts another in the same folder.
    pub(crate) async fn restart(self, sets: &[&str]) -> Self {
        self.app.stop().await.unwrap();
        let app = App::start(settings(&self.folder, sets)).await.unwrap();
        Self {
            router: kith::http::router(app.clone()),
            app,
            folder: self.folder,
        }
    }

    /// Stops the app in order; its folder.
    pub(crate) async fn stop(self) -> TempDir {
        self.app.stop().await.unwrap();
        self.folder
    }

    /// The body of an answer, which is still to be read.
    pub(crate) async fn open(&self, request: Request<Body>) -> Body {
        let response = self.router.clone().oneshot(request).await.unwrap();
        response.into_body()
    }

    /// The answer to a request, its body unread.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// One request through all layers, without a socket.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let asked = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.send_unchecked(request).await;
        self.document().await.check(&asked.0, &asked.1, &reply);
        reply
    }

    async fn send_unchecked(&self, request: Request<Body>) -> Reply {
        let (parts, mut body) = self.answer(request).await.into_parts();
        // A stream of events has no end.
        if parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|media| media == "text/event-stream")
        {
            body = Body::empty();
        }
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    /// The document of the interface, read once.
    pub(crate) async fn document(&self) -> &'static Document {
        static DOCUMENT: OnceCell<Document> = OnceCell::const_new();
        let read = async || {
            let request = request(Method::GET, "/openapi.json", None, Body::empty());
            Document::new(self.send_unchecked(request).await.json())
        };
        DOCUMENT.get_or_init(read).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path, None, Body::empty()))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(request(Method::DELETE, path, None, Body::empty()))
            .await
    }

    pub(crate) async fn post(&self, path: &str, document: &Value) -> Reply {
        self.send_json(Method::POST, path, document).await
    }

    pub(crate) async fn put(&self, path: &str, document: &Value) -> Reply {
        self.send_json(Method::PUT, path, document).await
    }

    pub(crate) async fn patch(&self, path: &str, document: &Value) -> Reply {
        self.send_json(Method::PATCH, path, document).await
    }

    async fn send_json(&self, method: Method, path: &str, document: &Value) -> Reply {
        let body = Body::from(document.to_string());
        self.send(request(method, path, Some("application/json"), body))
            .await
    }

    pub(crate) async fn post_as(&self, path: &str, media: &str, body: impl Into<Body>) -> Reply {
        self.send(request(Method::POST, path, Some(media), body.into()))
            .await
    }

    /// A complete checkpoint with other weights than any other seed's.
    pub(crate) async fn write_checkpoint(&self, seed: u64) -> CheckpointId {
        self.write_changed(|snapshot| fill(snapshot, seed, &self.app))
            .await
    }

    /// A complete checkpoint of which one weight is not a number.
    pub(crate) async fn write_broken_checkpoint(&self) -> CheckpointId {
        self.write_changed(|snapshot| snapshot.model[0].data[0] = f32::NAN)
            .await
    }

    /// [`Self::write_checkpoint`] with all weights times `scale`.
    pub(crate) async fn write_scaled(&self, seed: u64, scale: f32) -> CheckpointId {
        self.write_changed(|snapshot| {
            fill(snapshot, seed, &self.app);
            let weights = snapshot.model.iter_mut().flat_map(|array| &mut array.data);
            weights.for_each(|value| *value *= scale);
        })
        .await
    }

    /// A complete checkpoint with a change of the newest one's state.
    pub(crate) async fn write_changed(&self, change: impl FnOnce(&mut Snapshot)) -> CheckpointId {
        let (checkpoints, label) = (&self.app.checkpoints, Label::new(None));
        let (_, mut snapshot) = checkpoints.newest().await.unwrap().unwrap();
        change(&mut snapshot);
        checkpoints
            .begin(&label, snapshot.trainer.step)
            .await
            .unwrap();
        checkpoints.write(&label, snapshot, None).await.unwrap();
        label.id
    }
}

/// Fresh weights of another seed in a snapshot.
fn fill(snapshot: &mut Snapshot, seed: u64, app: &App) {
    let config = app.settings.encoder_config();
    let device = app.settings.device(Purpose::Training).unwrap();
    let towers = Towers::fresh(&config, seed, &device).unwrap();
    let optimizer = TowerOptimizer::new(&app.settings.optimizer, &towers).unwrap();
    snapshot.model = towers.to_arrays().unwrap();
    snapshot.optimizer = optimizer.to_arrays().unwrap();
}

pub(crate) fn request(
    method: Method,
    path: &str,
    media: Option<&str>,
    body: Body,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(media) = media {
        request = request.header(CONTENT_TYPE, media);
    }
    request.body(body).unwrap()
}

/// A PNG of `side` pixels, another picture for each seed: two colours in stripes whose width and colours follow from it.
pub(crate) fn png_of(side: u32, seed: u32) -> Vec<u8> {
    let colour = |n: u32| {
        let bits = kith_seed::mix(&[seed.into(), n.into()]).to_le_bytes();
        image::Rgb([bits[0], bits[1], bits[2]])
    };
    let (a, b, stripe) = (colour(0), colour(1), 2 + seed % 5);
    let picture =
        image::RgbImage::from_fn(side, side, |x, y| match (x + y * (seed % 3)) / stripe % 2 {
            0 => a,
            _ => b,
        });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// A PNG of 40 × 40 pixels.
pub(crate) fn png(seed: u32) -> Vec<u8> {
    png_of(40, seed)
}

/// `data:image/png;base64,…`.
pub(crate) fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// A form: (field, file name if it is a file, content).
pub(crate) fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (&'static str, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        let head =
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge", body)
}

/// The vector at `index` of an embedding answer.
pub(crate) fn vector(answer: &Value, index: usize) -> Vec<f32> {
    let values = answer["data"][index]["embedding"].as_array().unwrap();
    values
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect()
}

/// Largest absolute difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

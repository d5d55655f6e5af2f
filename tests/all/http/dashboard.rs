//! `GET /` in a browser, its frame, and what only it asks for: thumbnails, the history and the map.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, StatusCode, header::ACCEPT},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{Reply, Served, data_uri, png, png_of, request};

/// Longer than anything here takes on a busy machine.
const CEILING: Duration = Duration::from_secs(120);

async fn browse(served: &Served, path: &str) -> Reply {
    let mut request = request(Method::GET, path, None, Body::empty());
    let accepted = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
    request
        .headers_mut()
        .insert(ACCEPT, accepted.parse().unwrap());
    served.send(request).await
}

#[tokio::test]
async fn a_browser_gets_the_dashboard_and_others_the_list_of_routes() {
    let served = Served::start(&[]).await;
    let page = browse(&served, "/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("<title>kith</title>"));
    let list = served.get("/").await;
    assert_eq!(
        list.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(list.text().contains("POST /v1/search"));
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_connects_to_its_own_server_only() {
    let served = Served::start(&[]).await;
    let page = browse(&served, "/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"));
    assert!(policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = page.text();
    // Nothing is left to fill in, nothing is fetched from elsewhere.
    assert!(!text.contains("<style>{style}") && !text.contains("<script>{script}"));
    for attribute in ["src=\"http", "href=\"http", "import(\"http", "fetch(\"http"] {
        assert!(!text.contains(attribute), "{attribute}");
    }
    assert_eq!(
        text.matches("</script>").count(),
        1,
        "the script ends early"
    );
}

#[tokio::test]
async fn the_frame_that_makes_code_has_no_origin_and_no_network() {
    let served = Served::start(&[]).await;
    let frame = browse(&served, "/dashboard/map").await;
    assert_eq!(frame.status, StatusCode::OK);
    let policy = frame.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("connect-src"));
    assert!(policy.contains("sandbox allow-scripts;"), "{policy}");
    assert!(policy.contains("frame-ancestors 'self'"));
    let page = browse(&served, "/").await.text();
    assert!(page.contains("sandbox:\"allow-scripts\""));
}

#[tokio::test]
async fn a_thumbnail_is_a_small_jpeg_until_its_image_is_deleted() {
    let served = Served::start(&[]).await;
    let stored = served
        .post_as("/v1/images", "image/png", png_of(400, 1))
        .await
        .json();
    let path = format!("/v1/images/{}/thumbnail", stored["id"].as_str().unwrap());
    for _ in 0..2 {
        let reply = served.get(&path).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("image/jpeg"));
        let small = image::load_from_memory(&reply.body).unwrap();
        assert_eq!((small.width(), small.height()), (160, 160));
    }
    let deleted = served.delete(&path.replace("/thumbnail", "")).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let gone = served.get(&path).await;
    assert_eq!(gone.error(StatusCode::NOT_FOUND).0, "unknown_image");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_goes_on_after_a_restart() {
    let sets = &["history.every_seconds=1"];
    let served = Served::start(sets).await;
    let samples = async |served: &Served, count: usize| {
        let look = async {
            loop {
                let history = served.get("/v1/history").await.json();
                let data = history["data"].as_array().unwrap().clone();
                if data.len() >= count {
                    return data;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(CEILING, look).await.expect("no sample is taken")
    };
    let before = samples(&served, 1).await.len();
    let document = json!({"input": data_uri(&png(1))});
    assert_eq!(served.post("/v1/embeddings", &document).await.status, 200);
    // One of them may be under way, and another end before the request.
    let first = samples(&served, before + 3).await;
    let seen = first
        .iter()
        .any(|one| one["requests_per_second"].as_f64() > Some(0.0));
    assert!(seen, "{first:?}");
    assert!(first.iter().all(|one| one["disk_bytes"].as_u64() > Some(0)));
    let served = served.restart(sets).await;
    let later = samples(&served, first.len() + 1).await;
    assert_eq!(later[..first.len()], first);
    let none = served.get("/v1/history?seconds=0").await.json();
    assert!(none["data"].as_array().unwrap().len() < later.len());
}

/// The map, once `ready` accepts it.
async fn map(served: &Served, path: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let reply = served.get(path).await;
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            let map = reply.json();
            if ready(&map) {
                return map;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(CEILING, look).await.expect("no map is made")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_has_every_image_once_with_its_group_and_survives_a_restart() {
    let sets = &["search.enabled=true", "search.background_share=1"];
    let served = Served::start(sets).await;
    let mut pairs = Vec::new();
    for at in 0..12 {
        let image = |seed: u32| json!({"image": data_uri(&png(seed))});
        let group = ["a", "b"][at as usize % 2];
        pairs.push(json!({"anchor": image(2 * at), "positive": image(2 * at + 1), "group": group}));
    }
    served.post("/v1/pairs", &json!({"pairs": pairs})).await;
    // The first may be made before all images are embedded.
    let made = map(&served, "/v1/map", |map| {
        map["ids"].as_array().unwrap().len() == 24
    })
    .await;
    assert_eq!(made["state"], "ready");
    let length = |field: &str| made[field].as_array().unwrap().len();
    assert_eq!(["ids", "x", "y", "group"].map(length), [24; 4]);
    assert_eq!(length("groups"), 2);
    for at in 0..24 {
        let id = made["ids"][at].as_str().unwrap();
        let place = [&made["x"][at], &made["y"][at]].map(|value| value.as_f64().unwrap());
        assert!(place.iter().all(|value| value.abs() <= 1.0), "{place:?}");
        let seed = (0..24).find(|seed| kith::types::Sha256::digest(&png(*seed)).to_string() == id);
        let group = made["group"][at].as_u64().unwrap() as usize;
        assert_eq!(
            made["groups"][group],
            ["a", "b"][seed.unwrap() as usize / 2 % 2]
        );
    }
    // An erased image leaves the map with its row.
    let first = made["ids"][0].as_str().unwrap();
    served.delete(&format!("/v1/images/{first}")).await;
    let served = served.restart(sets).await;
    let after = served.get("/v1/map").await.json();
    assert_eq!(
        after["ids"].as_array().unwrap()[..],
        made["ids"].as_array().unwrap()[1..]
    );
    assert_eq!(after["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_checkpoints_have_maps_of_their_own_and_name_what_changed() {
    let sets = &["search.enabled=true", "search.background_share=1"];
    let served = Served::start(sets).await;
    for seed in 0..20 {
        served.post_as("/v1/images", "image/png", png(seed)).await;
    }
    let live = served.app.serving.live().unwrap().id;
    let other = served.write_checkpoint(5).await;
    let path = format!("/v1/map?checkpoint={other}");
    let ready = |map: &Value| map["ids"].as_array().unwrap().len() == 20;
    assert_eq!(
        map(&served, &path, ready).await["checkpoint"],
        other.to_string()
    );
    assert_eq!(
        map(&served, "/v1/map", ready).await["checkpoint"],
        live.to_string()
    );
    let path = format!("/v1/map/changes?from={live}&to={other}");
    let changes = served.get(&path).await.json();
    let shared: Vec<f64> = changes["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["shared"].as_f64().unwrap())
        .collect();
    assert_eq!(shared.len(), 20);
    assert!(shared.is_sorted() && shared[0] < 1.0, "{shared:?}");
    let same = served
        .get(&format!("/v1/map/changes?from={live}&to={live}"))
        .await
        .json();
    let mut same = same["data"].as_array().unwrap().iter();
    assert!(same.all(|change| change["shared"] == 1.0));
    for (path, code) in [
        ("/v1/map?checkpoint=newest", "invalid_id"),
        ("/v1/map/changes?from=a&to=b", "invalid_id"),
        ("/v1/map/changes", "missing_field"),
    ] {
        let refused = served.get(path).await;
        assert_eq!(refused.error(StatusCode::BAD_REQUEST).0, code, "{path}");
    }
}

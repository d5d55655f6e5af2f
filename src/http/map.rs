//! `/v1/map`: the stored images in two dimensions, for people.

use std::collections::HashMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{context::Context, error::ApiError, extract::Params};
use crate::{app::App, search::ImageMap, types::CheckpointId};

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(get_map))
        .routes(routes!(get_changes))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapParams {
    checkpoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangesParams {
    from: String,
    to: String,
}

#[derive(Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum MapState {
    Ready,
    Computing,
}

/// One entry of each list an image.
#[derive(Serialize, utoipa::ToSchema)]
struct MapResponse {
    checkpoint: CheckpointId,
    /// `computing`: a first map is being made, and the lists are empty.
    state: MapState,
    /// How far it is made.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
    ids: Vec<String>,
    /// From -1 to 1.
    x: Vec<f32>,
    /// From -1 to 1.
    y: Vec<f32>,
    /// Places in `groups`; -1: none.
    group: Vec<i64>,
    groups: Vec<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ChangesResponse {
    /// Those that changed most first, at most 50.
    data: Vec<ChangedImage>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ChangedImage {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    /// Share of its ten nearest images that are the same.
    #[schema(minimum = 0, maximum = 1)]
    shared: f64,
}

/// The stored images in two dimensions: nearer means more alike.
///
/// At most 100,000 images, evenly chosen. A map is made in the background when it is first asked for, and again when a tenth of the images is missing on it. It begins
/// from an earlier map, so that images move only where the checkpoint sees them otherwise.
#[utoipa::path(get, path = "/v1/map", params(("checkpoint" = Option<CheckpointId>, Query, description = "whose map; that of the checkpoint which answers searches unless given")), responses((status = 200, body = MapResponse), (status = 400, description = "invalid_id"), (status = 404, description = "unknown_checkpoint"), (status = 409, description = "search_disabled checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 503, description = "not_ready")))]
async fn get_map(
    State(app): State<App>,
    Params(params): Params<MapParams>,
) -> Result<Json<MapResponse>, ApiError> {
    let checkpoint = params.checkpoint.map(|id| parse_id(&id, "checkpoint"));
    let map = app.search.map(checkpoint.transpose()?).await?;
    Ok(Json(map.into()))
}

/// The images whose nearest images changed most from one checkpoint to another, of a sample of at most 500.
#[utoipa::path(get, path = "/v1/map/changes", params(("from" = CheckpointId, Query, description = "a checkpoint"), ("to" = CheckpointId, Query, description = "another")), responses((status = 200, body = ChangesResponse), (status = 400, description = "invalid_id missing_field"), (status = 404, description = "unknown_checkpoint"), (status = 409, description = "search_disabled checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 503, description = "not_ready")))]
async fn get_changes(
    State(app): State<App>,
    Params(params): Params<ChangesParams>,
) -> Result<Json<ChangesResponse>, ApiError> {
    let (from, to) = (parse_id(&params.from, "from")?, parse_id(&params.to, "to")?);
    let changes = app.search.changes(from, to).await?;
    let changed = changes.into_iter().map(|change| ChangedImage {
        id: change.id.to_string(),
        shared: change.shared,
    });
    Ok(Json(ChangesResponse {
        data: changed.collect(),
    }))
}

fn parse_id(text: &str, param: &str) -> Result<CheckpointId, ApiError> {
    text.parse().map_err(|_| {
        let message = "this is not a checkpoint's id: GET /v1/checkpoints lists the ids";
        ApiError::invalid("invalid_id", param, message)
    })
}

impl From<ImageMap> for MapResponse {
    fn from(map: ImageMap) -> Self {
        let mut numbers: HashMap<String, i64> = HashMap::new();
        let mut groups = Vec::new();
        let mut number = |group: Option<String>| {
            let Some(name) = group else { return -1 };
            *numbers.entry(name).or_insert_with_key(|name| {
                groups.push(name.clone());
                groups.len() as i64 - 1
            })
        };
        let (mut ids, mut x, mut y, mut group) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for image in map.images {
            ids.push(image.sha256.to_string());
            x.push(image.place[0]);
            y.push(image.place[1]);
            group.push(number(image.group));
        }
        let computing = ids.is_empty() && map.progress.is_some();
        Self {
            checkpoint: map.checkpoint,
            state: if computing {
                MapState::Computing
            } else {
                MapState::Ready
            },
            progress: map.progress.unwrap_or(1.0),
            ids,
            x,
            y,
            group,
            groups,
        }
    }
}

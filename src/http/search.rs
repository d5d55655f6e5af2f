//! `/v1/search`: the stored images nearest to an image, and how far their vectors are made.

use axum::{Json, extract::State, http::HeaderMap};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::Body,
    input::ImageInput,
    json::{self, parse},
    load::priority,
    models::pinned_name,
};
use crate::{
    app::App,
    search::{Answer, Coverage, Found, Query, Question, Role, SpaceState},
    types::{CheckpointId, Sha256},
};

/// Images of an answer, unless `k` says otherwise.
const DEFAULT_K: usize = 10;
/// Most images of an answer.
const MAX_K: usize = 1000;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(find_nearest, get_search))
}

/// What is looked for: exactly one of `image`, `id` and `vector`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SearchRequest {
    /// An image, which need not be stored.
    image: Option<ImageInput>,
    /// A stored image. It is not among the answers.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: Option<String>,
    /// An embedding as `POST /v1/embeddings` gives it; its length does not matter.
    vector: Option<Vec<f32>>,
    /// Most images of the answer; 10 unless given.
    #[serde(default, deserialize_with = "json::optional_whole")]
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<usize>,
    /// Only images of pairs of this group.
    group: Option<String>,
    /// The checkpoint that answers, by its id. Without it the newest that has embedded all stored images does; for a `vector` the live one.
    #[schema(format = Uuid)]
    checkpoint: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct SearchResponse {
    /// The nearest first.
    data: Vec<FoundImage>,
    /// The checkpoint of all scores, as `kith@ID`.
    model: String,
    /// Share of the stored images that are embedded under it; the others are not found.
    #[schema(minimum = 0, maximum = 1)]
    indexed_share: f64,
    /// The live checkpoint, where another answered.
    next: Option<NextModel>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct FoundImage {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    /// Cosine of the embeddings.
    score: f32,
    /// The group of its first pair that has one.
    group: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct NextModel {
    model: String,
    /// Share of the stored images that are embedded under it.
    #[schema(minimum = 0, maximum = 1)]
    indexed_share: f64,
}

#[derive(Serialize, utoipa::ToSchema)]
struct SearchState {
    /// Whether this server searches (`search.enabled`).
    enabled: bool,
    /// Images that are stored.
    stored_images: u64,
    /// The checkpoints whose vectors are kept, the one that answers first.
    data: Vec<SpaceResponse>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct SpaceResponse {
    checkpoint: CheckpointId,
    role: Role,
    /// Images that are embedded.
    images: usize,
    /// Share of the stored images that are embedded.
    #[schema(minimum = 0, maximum = 1)]
    indexed_share: f64,
    /// Images that a graph finds; the others are scanned.
    graph_images: usize,
    /// How far a graph over its vectors is built, which takes minutes for a million; null where none is being built.
    #[schema(minimum = 0, maximum = 1)]
    graph_progress: Option<f64>,
    /// Bytes in memory.
    bytes: usize,
}

/// The stored images that are nearest to an image, a stored image or a vector.
///
/// All scores of an answer come from one checkpoint, which `model` names. After a promotion the stored images are embedded again in the
/// background; until that is done, the checkpoint before goes on answering.
#[utoipa::path(post, path = "/v1/search", params(("x-kith-priority" = Option<String>, Header, pattern = "^(interactive|bulk)$", description = "which requests go first; interactive unless given")), request_body = SearchRequest, responses((status = 200, body = SearchResponse), (status = 400, description = "invalid_query invalid_k invalid_id invalid_vector image_undecodable url_not_supported"), (status = 404, description = "unknown_image unknown_checkpoint"), (status = 409, description = "search_disabled image_damaged checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 413, description = "image_too_large"), (status = 503, description = "not_ready")))]
async fn find_nearest(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<SearchResponse>, ApiError> {
    let priority = priority(&headers)?;
    let max_bytes = app.settings.limits.max_bytes;
    let read = move |request: SearchRequest| request.read(max_bytes);
    let query = Query {
        priority,
        ..parse(body, read).await?
    };
    Ok(Json(app.search.find(query).await?.into()))
}

/// The checkpoints that can be searched, and how many stored images are embedded under each.
#[utoipa::path(get, path = "/v1/search", responses((status = 200, body = SearchState)))]
async fn get_search(State(app): State<App>) -> Result<Json<SearchState>, ApiError> {
    let stored_images = app.db.count_images().await?;
    let states = app.search.states(stored_images);
    Ok(Json(SearchState {
        enabled: app.settings.search.enabled,
        stored_images,
        data: states.into_iter().map(SpaceResponse::from).collect(),
    }))
}

impl SearchRequest {
    fn read(self, max_bytes: usize) -> Result<Query, ApiError> {
        let question = match (self.image, self.id, self.vector) {
            (Some(image), None, None) => Question::Image(image.bytes(max_bytes, "image")?),
            (None, Some(id), None) => Question::Stored(parse_image_id(&id)?),
            (None, None, Some(vector)) => Question::Vector(vector),
            _ => {
                let message = "send exactly one of image, id and vector";
                return Err(ApiError::BadRequest(Problem::new("invalid_query", message)));
            }
        };
        let k = self.k.unwrap_or(DEFAULT_K);
        if !(1..=MAX_K).contains(&k) {
            let message = format!("k must be from 1 to {MAX_K}");
            return Err(ApiError::invalid("invalid_k", "k", message));
        }
        let checkpoint = self.checkpoint.map(|id| {
            id.parse().map_err(|_| {
                let message = "this is not a checkpoint's id: GET /v1/checkpoints lists the ids";
                ApiError::invalid("invalid_id", "checkpoint", message)
            })
        });
        Ok(Query {
            question,
            k,
            group: self.group,
            checkpoint: checkpoint.transpose()?,
            priority: None,
        })
    }
}

fn parse_image_id(id: &str) -> Result<Sha256, ApiError> {
    id.parse().map_err(|_| {
        let message = "an image's id is 64 hexadecimal digits: GET /v1/images lists the ids";
        ApiError::invalid("invalid_id", "id", message)
    })
}

impl From<Answer> for SearchResponse {
    fn from(answer: Answer) -> Self {
        let Answer {
            found,
            coverage,
            next,
        } = answer;
        Self {
            data: found.into_iter().map(FoundImage::from).collect(),
            model: pinned_name(coverage.checkpoint),
            indexed_share: coverage.share,
            next: next.map(|Coverage { checkpoint, share }| NextModel {
                model: pinned_name(checkpoint),
                indexed_share: share,
            }),
        }
    }
}

impl From<Found> for FoundImage {
    fn from(found: Found) -> Self {
        Self {
            id: found.id.to_string(),
            score: found.score,
            group: found.group,
        }
    }
}

impl From<SpaceState> for SpaceResponse {
    fn from(state: SpaceState) -> Self {
        Self {
            checkpoint: state.coverage.checkpoint,
            role: state.role,
            images: state.images,
            indexed_share: state.coverage.share,
            graph_images: state.in_graph,
            graph_progress: state.graph_progress,
            bytes: state.bytes,
        }
    }
}

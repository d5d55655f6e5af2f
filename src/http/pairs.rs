//! `/v1/pairs`: stores, lists and deletes pairs.

use axum::{
    Json,
    extract::{Extension, FromRequest, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    body_budget::BodyPermit,
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Id, Params},
    forms::PairForm,
    idempotency::{self, StoredAnswer},
    json::parse,
    media::MediaType,
    multipart::Form,
    ndjson,
    page::{Page, PageParams},
    pair_request::{PairRequest, PairsRequest, check_count, read_form},
    pair_response::{PairLine, PairResponse},
    to_the_end::to_the_end,
};
use crate::{
    app::App,
    ingest::{PairUpload, Upload},
    types::Sha256,
};
use kith_mcmc::PairKey;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(post_pairs, list_pairs))
        .routes(routes!(get_pair, delete_pair))
}

#[derive(Serialize, utoipa::ToSchema)]
struct PairsResponse {
    data: Vec<PairResponse>,
}

/// Stores pairs.
///
/// All pairs of a JSON document are stored or none. A stream holds one pair a line and is answered line by line.
#[utoipa::path(post, path = "/v1/pairs", params(("idempotency-key" = Option<String>, Header, description = "a retry with the same key is answered as the first request was; not for streams", pattern = "^[ -~]{1,255}$")), request_body(content((PairsRequest = "application/json"), (PairRequest = "application/x-ndjson"), (PairForm = "multipart/form-data"))), responses((status = 201, description = "Every pair and image is on disk.", body = PairsResponse), (status = 200, description = "A stream: a pair or an error a line, in the order of the request.", body = PairLine, content_type = "application/x-ndjson"), (status = 400, description = "invalid_idempotency_key invalid_id no_pairs image_undecodable url_not_supported"), (status = 404, description = "unknown_image"), (status = 409, description = "group_conflict image_damaged weight_conflict"), (status = 413, description = "image_too_large too_many_pairs"), (status = 415, description = "unsupported_media_type"), (status = 422, description = "idempotency_key_reused"), (status = 507, description = "storage_full")))]
async fn post_pairs(
    State(context): State<Context>,
    Extension(permit): Extension<BodyPermit>,
    request: Request,
) -> Result<Response, ApiError> {
    const ACCEPTED: [MediaType; 3] = [MediaType::Json, MediaType::Multipart, MediaType::Ndjson];
    let media = MediaType::require(request.headers(), &ACCEPTED)?;
    let key = idempotency::key(&request)?;
    if media == MediaType::Ndjson {
        return post_stream(context, permit, key, request);
    }
    let (pairs, fingerprint) = match media {
        MediaType::Multipart => read_multipart(&context.app, request).await?,
        _ => read_json(&context.app, request).await?,
    };
    let answer = to_the_end(async move {
        let work = store(&context.app, pairs);
        // Kept for a retry of a client that goes away, too.
        context.idempotency.answer(key, fingerprint, work).await
    });
    Ok(answer.await?.into_response())
}

fn post_stream(
    context: Context,
    permit: BodyPermit,
    key: Option<String>,
    request: Request,
) -> Result<Response, ApiError> {
    match key {
        None => Ok(ndjson::respond(context, permit, request.into_body())),
        Some(_) => {
            let message = "a stream has no idempotency key: send its lines again, since no pair is stored twice";
            Err(ApiError::invalid(
                "invalid_idempotency_key",
                idempotency::HEADER,
                message,
            ))
        }
    }
}

async fn read_json(app: &App, request: Request) -> Result<(Vec<PairUpload>, Sha256), ApiError> {
    let Body(body) = Body::from_request(request, &()).await?;
    let (max_pairs, max_bytes) = (app.settings.server.max_pairs, app.settings.limits.max_bytes);
    let whole = body.clone();
    parse(body, move |document: PairsRequest| {
        check_count(document.pairs.len(), max_pairs)?;
        let pairs = document.pairs.iter().enumerate();
        let pairs =
            pairs.map(|(index, pair)| pair.0.to_upload(max_bytes, &format!("pairs[{index}].")));
        Ok((pairs.collect::<Result<_, _>>()?, Sha256::digest(&whole)))
    })
    .await
}

/// The fingerprint is of the parts, since a retry has another boundary.
async fn read_multipart(
    app: &App,
    request: Request,
) -> Result<(Vec<PairUpload>, Sha256), ApiError> {
    let form = Form::from_request(request, app.settings.limits.max_bytes).await?;
    let pair = read_form(form).await?;
    let fingerprint = fingerprint(&pair);
    Ok((vec![pair], fingerprint))
}

fn fingerprint(pair: &PairUpload) -> Sha256 {
    let hash = |upload: &Upload| match upload {
        Upload::Bytes(bytes) => Sha256::digest(bytes).to_string(),
        Upload::Id(id) => id.to_string(),
    };
    let positive = pair.positive.as_ref().map(hash);
    let label = (&pair.group, pair.weight);
    Sha256::digest(format!("{} {positive:?} {label:?}", hash(&pair.anchor)).as_bytes())
}

async fn store(app: &App, pairs: Vec<PairUpload>) -> Result<StoredAnswer, ApiError> {
    let stored = app.ingest.add_pairs(pairs).await?;
    let data = stored.into_iter().map(PairResponse::from_post).collect();
    let json = serde_json::to_vec(&PairsResponse { data }).map_err(ApiError::internal)?;
    Ok(StoredAnswer {
        status: StatusCode::CREATED,
        json: Bytes::from(json),
    })
}

/// A page of the stored pairs.
#[utoipa::path(get, path = "/v1/pairs", params(("limit" = Option<u32>, Query, description = "rows; 100 unless given", minimum = 1, maximum = 1000), ("after" = Option<String>, Query, description = "`next` of the previous page", pattern = "^([0-9]{1,9}|[1-3][0-9]{9})$"), ("group" = Option<String>, Query, description = "those of one group")), responses((status = 200, body = Page<PairResponse>), (status = 400, description = "invalid_limit invalid_cursor")))]
async fn list_pairs(
    State(app): State<App>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<PairResponse>>, ApiError> {
    if params.damaged.is_some() {
        return Err(ApiError::invalid(
            "invalid_parameter",
            "damaged",
            "pairs have no bytes of their own: list images by damaged",
        ));
    }
    let (after, limit) = params.cursor()?;
    let group = params.group.as_deref();
    let rows = app.db.pairs_after(PairKey(after), limit + 1, group).await?;
    Ok(Json(Page::from_rows(
        rows,
        limit,
        |row| row.key.0,
        PairResponse::from,
    )))
}

/// One pair.
#[utoipa::path(get, path = "/v1/pairs/{id}", params(("id" = Uuid, Path, description = "the pair's id")), responses((status = 200, body = PairResponse), (status = 404, description = "unknown_id unknown_pair")))]
async fn get_pair(
    State(app): State<App>,
    Id(id): Id<Uuid>,
) -> Result<Json<PairResponse>, ApiError> {
    let row = app.db.pair(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(row.into()))
}

/// Deletes a pair and leaves its images.
#[utoipa::path(delete, path = "/v1/pairs/{id}", params(("id" = Uuid, Path, description = "the pair's id")), responses((status = 204, description = "It is deleted; its images stay."), (status = 404, description = "unknown_id unknown_pair"), (status = 507, description = "storage_full")))]
async fn delete_pair(State(app): State<App>, Id(id): Id<Uuid>) -> Result<StatusCode, ApiError> {
    if app.db.delete_pair(id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(id))
    }
}

fn unknown(id: Uuid) -> ApiError {
    let message = format!("no pair {id} is stored: GET /v1/pairs lists the stored ones");
    ApiError::NotFound(Problem::new("unknown_pair", message).with_param("id"))
}

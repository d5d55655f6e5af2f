//! `/v1/pairs`: pairs stored durably, listed, erased.

use axum::{
    Json, Router,
    extract::{Extension, FromRequest, Multipart, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{
    budget::Charge,
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Id, Media, Params, parse},
    idempotency::{self, Answer},
    ndjson,
    page::{Page, PageParams},
    pair_request::{PairsDocument, count, from_form},
};
use crate::{
    app::App,
    db::{PairRow, Split},
    ingest::{PairUpload, Upload},
    types::Sha256,
};
use kith_mcmc::PairKey;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/pairs", post(add).get(list))
        .route("/v1/pairs/{id}", get(one).delete(remove))
}

/// A pair as it is answered.
#[derive(Serialize)]
pub(super) struct Pair {
    id: Uuid,
    anchor: String,
    /// The anchor again where no positive was posted: its own two views are the pair.
    positive: String,
    group: Option<String>,
    created_at: Timestamp,
    /// Never trained on.
    holdout: bool,
    split: Split,
    /// In the answer to a post only: the pair was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

#[derive(Serialize)]
struct Added {
    data: Vec<Pair>,
}

impl From<PairRow> for Pair {
    fn from(row: PairRow) -> Self {
        Self {
            id: row.id,
            anchor: row.anchor.to_string(),
            positive: row.positive.to_string(),
            group: row.group,
            created_at: row.created_at,
            holdout: row.split == Split::Holdout,
            split: row.split,
            duplicate: None,
        }
    }
}

impl Pair {
    /// A pair that was just posted.
    pub(super) fn posted((row, duplicate): (PairRow, bool)) -> Self {
        Self {
            duplicate: Some(duplicate),
            ..row.into()
        }
    }
}

async fn add(
    State(context): State<Context>,
    Extension(charge): Extension<Charge>,
    request: Request,
) -> Result<Response, ApiError> {
    const TAKEN: [Media; 3] = [Media::Json, Media::Multipart, Media::Lines];
    let media = Media::of(request.headers(), &TAKEN)?;
    let key = idempotency::key(request.headers())?;
    if media == Media::Lines {
        return stream(context, charge, key, request);
    }
    let (pairs, fingerprint) = match media {
        Media::Multipart => form(&context.app, request).await?,
        _ => document(&context.app, request).await?,
    };
    let work = store(&context.app, pairs);
    let answer = context.idempotency.answer(key, fingerprint, work).await?;
    Ok(answer.into_response())
}

fn stream(
    context: Context,
    charge: Charge,
    key: Option<String>,
    request: Request,
) -> Result<Response, ApiError> {
    match key {
        None => Ok(ndjson::answer(context, charge, request.into_body())),
        Some(_) => {
            let message = "a stream takes no idempotency key: send its lines again, pairs that are there are not stored twice";
            Err(ApiError::invalid(
                "invalid_idempotency_key",
                idempotency::HEADER,
                message,
            ))
        }
    }
}

async fn document(app: &App, request: Request) -> Result<(Vec<PairUpload>, Sha256), ApiError> {
    let Body(body) = Body::from_request(request, &()).await?;
    let (max_pairs, max_bytes) = (app.settings.server.max_pairs, app.settings.limits.max_bytes);
    let whole = body.clone();
    parse(body, move |document: PairsDocument| {
        count(document.pairs.len(), max_pairs)?;
        let pairs = document.pairs.iter().enumerate();
        let pairs =
            pairs.map(|(index, pair)| pair.0.upload(max_bytes, &format!("pairs[{index}].")));
        Ok((pairs.collect::<Result<_, _>>()?, Sha256::of(&whole)))
    })
    .await
}

/// A retry's form has another boundary, so its parts are what is compared.
async fn form(app: &App, request: Request) -> Result<(Vec<PairUpload>, Sha256), ApiError> {
    let form = Multipart::from_request(request, &()).await;
    let form = form.map_err(|_| {
        let message = "the multipart form has no boundary: let your client set the content-type";
        ApiError::BadRequest(Problem::new("invalid_multipart", message))
    })?;
    let pair = from_form(form, app.settings.limits.max_bytes).await?;
    let fingerprint = fingerprint(&pair);
    Ok((vec![pair], fingerprint))
}

fn fingerprint(pair: &PairUpload) -> Sha256 {
    let hash = |upload: &Upload| match upload {
        Upload::Bytes(bytes) => Sha256::of(bytes).to_string(),
        Upload::Id(id) => id.to_string(),
    };
    let positive = pair.positive.as_ref().map(hash);
    Sha256::of(format!("{} {positive:?} {:?}", hash(&pair.anchor), pair.group).as_bytes())
}

async fn store(app: &App, pairs: Vec<PairUpload>) -> Result<Answer, ApiError> {
    let stored = app.ingest.add_pairs(pairs).await?;
    let data = stored.into_iter().map(Pair::posted).collect();
    let json = serde_json::to_vec(&Added { data }).map_err(ApiError::internal)?;
    Ok(Answer {
        status: StatusCode::CREATED,
        json: Bytes::from(json),
    })
}

async fn list(
    State(app): State<App>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<Pair>>, ApiError> {
    if params.damaged.is_some() {
        return Err(ApiError::invalid(
            "invalid_parameter",
            "damaged",
            "pairs have no bytes of their own: list images by damaged",
        ));
    }
    let (after, limit) = params.read()?;
    let group = params.group.as_deref();
    let rows = app.db.pairs_after(PairKey(after), limit + 1, group).await?;
    Ok(Json(Page::of(rows, limit, |row| row.key.0, Pair::from)))
}

async fn one(State(app): State<App>, Id(id): Id<Uuid>) -> Result<Json<Pair>, ApiError> {
    let row = app.db.pair(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(row.into()))
}

async fn remove(State(app): State<App>, Id(id): Id<Uuid>) -> Result<StatusCode, ApiError> {
    match app.db.delete_pair(id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown(id)),
    }
}

fn unknown(id: Uuid) -> ApiError {
    let message = format!("no pair {id} is stored: GET /v1/pairs lists those that are");
    ApiError::NotFound(Problem::new("unknown_pair", message).at("id"))
}

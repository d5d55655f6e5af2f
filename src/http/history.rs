//! `GET /v1/history`: how the server was, for the dashboard.

use axum::{Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::ApiError,
    extract::{Params, whole_parameter},
};
use crate::{app::App, history::Sample};

/// Seconds that an answer covers, unless the caller says otherwise.
fn default_seconds() -> u32 {
    6 * 3600
}

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(get_history))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryParams {
    #[serde(default = "default_seconds", deserialize_with = "whole_parameter")]
    seconds: u32,
}

#[derive(Serialize, utoipa::ToSchema)]
struct HistoryResponse {
    /// The oldest first, thinned evenly above 1,000.
    data: Vec<Sample>,
}

/// Samples of the server's figures, taken at intervals and kept over restarts.
#[utoipa::path(get, path = "/v1/history", params(("seconds" = Option<u32>, Query, description = "how far back; six hours unless given")), responses((status = 200, body = HistoryResponse)))]
async fn get_history(
    State(app): State<App>,
    Params(HistoryParams { seconds }): Params<HistoryParams>,
) -> Result<Json<HistoryResponse>, ApiError> {
    let now = Timestamp::now();
    let span = SignedDuration::from_secs(seconds.into());
    let since = now.checked_sub(span).unwrap_or(now);
    let data = app.history.since(since).await?;
    Ok(Json(HistoryResponse { data }))
}

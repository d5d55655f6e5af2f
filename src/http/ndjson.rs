//! `POST /v1/pairs` as a stream of NDJSON: one pair a line in the request, one result a line in the answer, in the same order. Memory holds
//! the lines that arrived together and the beginning of the next. The result of a line that fails is its error, and the stream continues.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{AnyDelimiterCodec, Decoder};

use super::{
    body_budget::BodyPermit,
    body_error::BodyError,
    context::Context,
    error::{ApiError, Problem},
    json,
    pair_request::PairRequest,
    pair_response::{PairLine, PairResponse},
};
use crate::{db::PairRow, ingest::PairUpload};

/// Answers at once with 200; the results follow as the lines come. Bytes of the body are released from `permit` once their lines are stored.
pub(super) fn respond(context: Context, permit: BodyPermit, body: Body) -> Response {
    let server = &context.app.settings.server;
    let lines = Lines {
        body: body.into_data_stream(),
        permit,
        buffer: BytesMut::new(),
        codec: AnyDelimiterCodec::new(b"\n".to_vec(), Vec::new()),
        consumed: 0,
        ended: false,
        max_bytes: server.max_body_bytes,
        max_lines: server.max_pairs,
        timeout: Duration::from_secs(server.timeout_seconds),
    };
    let results = stream::unfold(Some((context, lines)), |state| async move {
        let (context, mut lines) = state?;
        match lines.next_batch(&context).await {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => {
                let results = store(&context, batch).await;
                Some((results, Some((context, lines))))
            }
            // The rest of the stream cannot be read: the last line is the error.
            Err(error) => Some((to_line(Err(error)), None)),
        }
    });
    let body = Body::from_stream(results.map(Ok::<_, std::convert::Infallible>));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// A body read line by line.
struct Lines {
    body: BodyDataStream,
    permit: BodyPermit,
    buffer: BytesMut,
    codec: AnyDelimiterCodec,
    /// Bytes of the last batch.
    consumed: usize,
    ended: bool,
    /// Most bytes of a line.
    max_bytes: usize,
    /// Most lines of a batch.
    max_lines: usize,
    /// Longest wait for the next line.
    timeout: Duration,
}

impl Lines {
    /// Waits for a line, then returns all complete ones, at most `max_lines`. Blank lines are skipped. Empty at the end of the stream.
    async fn next_batch(&mut self, context: &Context) -> Result<Vec<Bytes>, ApiError> {
        let mut stopped = context.stopping.clone();
        // Of the next line as a whole: bytes that come now and then do not extend it.
        let deadline = Instant::now() + self.timeout;
        loop {
            // The previous batch is stored, or blank.
            self.permit.release(std::mem::take(&mut self.consumed));
            let lines = self.complete_lines()?;
            if !lines.is_empty() || self.ended {
                return Ok(lines);
            }
            if self.buffer.len() > self.max_bytes {
                let message = "a line is longer than server.max_body_bytes: send smaller images";
                return Err(ApiError::TooLarge(Problem::new("line_too_large", message)));
            }
            tokio::select! {
                more = self.read(deadline) => more?,
                // An error means that there is no sender, so that the server never stops: the branch is then disabled.
                Ok(_) = stopped.wait_for(|stop| *stop) => return Err(ApiError::stopping()),
            }
        }
    }

    async fn read(&mut self, deadline: Instant) -> Result<(), ApiError> {
        match timeout_at(deadline, self.body.next()).await {
            Ok(Some(Ok(chunk))) => self.buffer.extend_from_slice(&chunk),
            Ok(None) => self.ended = true,
            Ok(Some(Err(error))) => {
                return Err(BodyError::find(&error).unwrap_or_else(|| {
                    let message =
                        "the body is incomplete: send the lines that have no result again";
                    ApiError::BadRequest(Problem::new("invalid_body", message))
                }));
            }
            Err(_) => {
                let message =
                    "no whole line came for server.timeout_seconds: send the rest in a new request";
                return Err(ApiError::Timeout(Problem::new("timeout", message)));
            }
        }
        Ok(())
    }

    /// The complete lines in the buffer. After the end of the body the last line needs no line break.
    fn complete_lines(&mut self) -> Result<Vec<Bytes>, ApiError> {
        let mut lines = Vec::new();
        while lines.len() < self.max_lines {
            let buffered = self.buffer.len();
            let line = if self.ended {
                self.codec.decode_eof(&mut self.buffer)
            } else {
                self.codec.decode(&mut self.buffer)
            };
            let Some(line) = line.map_err(ApiError::internal)? else {
                break;
            };
            self.consumed += buffered - self.buffer.len();
            if !line.trim_ascii().is_empty() {
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

/// Stores the pairs of a batch in one transaction; if that fails, one by one, so that each line has its own result.
async fn store(context: &Context, batch: Vec<Bytes>) -> Bytes {
    let max_bytes = context.app.settings.limits.max_bytes;
    let parsed = tokio::task::spawn_blocking(move || -> Vec<Result<PairUpload, ApiError>> {
        let read = |line: &Bytes| json::from_slice::<PairRequest>(line)?.to_upload(max_bytes, "");
        batch.iter().map(read).collect()
    });
    let parsed = match parsed.await {
        Ok(parsed) => parsed,
        Err(panic) => return to_line(Err(ApiError::internal(panic))),
    };
    let good: Vec<PairUpload> = parsed
        .iter()
        .filter_map(|pair| pair.as_ref().ok())
        .cloned()
        .collect();
    let together = context.app.ingest.add_pairs(good).await;
    let mut together: Option<VecDeque<_>> = together.ok().map(VecDeque::from);
    let mut results = BytesMut::new();
    for pair in parsed {
        let result = match (pair, &mut together) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(stored)) => response(stored.pop_front()),
            (Ok(pair), None) => store_one(context, pair).await,
        };
        results.extend_from_slice(&to_line(result));
    }
    results.freeze()
}

async fn store_one(context: &Context, pair: PairUpload) -> Result<PairResponse, ApiError> {
    let stored = context.app.ingest.add_pairs(vec![pair]).await;
    let mut stored = stored.map_err(|error| without_index(error.into()))?;
    response(stored.pop())
}

fn response(stored: Option<(PairRow, bool)>) -> Result<PairResponse, ApiError> {
    stored
        .map(PairResponse::from_post)
        .ok_or_else(|| ApiError::internal("a pair has no row"))
}

/// Removes `pairs[0].` from the path of a field, since a line is one pair.
fn without_index(error: ApiError) -> ApiError {
    let param = error.problem().param.as_deref();
    match param
        .and_then(|param| param.strip_prefix("pairs[0]."))
        .map(str::to_owned)
    {
        Some(field) => error.with_param(field),
        None => error,
    }
}

fn to_line(result: Result<PairResponse, ApiError>) -> Bytes {
    format!("{}\n", json!(PairLine::from(result))).into()
}

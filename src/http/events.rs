//! `GET /v1/events`: what happens in the server, as server-sent events. A client that comes back with `last-event-id` goes on where it was.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::{Context, MAX_WATCHERS},
    error::{ApiError, Problem},
    extract::Params,
};
use crate::{
    events::{Event, Events, Kind, Watcher},
    keys::Caller,
};

/// Names the last event that a client has seen.
const LAST_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass events on as they come.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How often a line is sent while nothing happens, so that proxies keep the connection, and how often a key is checked again.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(watch_events))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventParams {
    /// Names of kinds, separated by commas; all if it is left out.
    kinds: Option<String>,
}

/// What a stream of events goes on with.
struct Watching {
    watcher: Watcher,
    run: i64,
    kinds: HashSet<Kind>,
    caller: Option<Caller>,
    stopping: watch::Receiver<bool>,
    /// The client's place among the watchers.
    _place: OwnedSemaphorePermit,
}

/// What happens in the server, as server-sent events.
///
/// Streams until the client leaves, the server stops or the key ends. Without `last-event-id` it begins with the next event.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(
        ("kinds" = Option<String>, Query, description = "names of kinds, separated by commas; all unless given", pattern = "^(step|training|checkpoint|evaluation|promotion|alarm)(,(step|training|checkpoint|evaluation|promotion|alarm))*$"),
        ("last-event-id" = Option<String>, Header, description = "the last event that the client has seen: the answer goes on after it")
    ),
    responses((status = 200, body = String, content_type = "text/event-stream"))
)]
async fn watch_events(
    State(context): State<Context>,
    Params(params): Params<EventParams>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kinds = kinds(params.kinds.as_deref())?;
    let events = &context.app.events;
    let place = context.watchers.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        let message =
            format!("{MAX_WATCHERS} clients watch events already: close one, or poll /v1/training");
        ApiError::Overloaded(Problem::new("overloaded", message))
    })?;
    let watching = Watching {
        watcher: events.watch(position(events, &headers)),
        run: events.run(),
        kinds,
        caller: caller.map(|Extension(caller)| caller),
        stopping: context.stopping.clone(),
        _place: place,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(stream_of(watching))
        .keep_alive(keep_alive)
        .into_response();
    response
        .headers_mut()
        .insert(BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

fn stream_of(watching: Watching) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        let id = format!("{}-{}", watching.run, event.number);
        let mut data = event.data.clone();
        if let Value::Object(fields) = &mut data {
            fields.insert("at".to_owned(), event.at.to_string().into());
        }
        let name = event.kind.name();
        let event = sse::Event::default()
            .id(id)
            .event(name)
            .data(data.to_string());
        Some((Ok(event), watching))
    })
}

impl Watching {
    /// The next event of the kinds asked for; `None`: the stream ends.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = tokio::select! {
                event = self.watcher.next() => Some(event),
                // An error means that there is no sender, so that the server never stops: the branch is then disabled.
                Ok(_) = self.stopping.wait_for(|stop| *stop) => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => None,
            };
            if self
                .caller
                .as_ref()
                .is_some_and(|caller| caller.check_usable().is_err())
            {
                return None;
            }
            if let Some(event) = event
                && self.kinds.contains(&event.kind)
            {
                return Some(event);
            }
        }
    }
}

/// The number of the last event that the client has seen. Of another run of the server it means nothing: then all that is kept follows.
fn position(events: &Events, headers: &HeaderMap) -> u64 {
    let Some(last) = headers.get(LAST_ID) else {
        return events.last();
    };
    let last = last.to_str().unwrap_or_default();
    let seen = last.rsplit_once('-').and_then(|(run, number)| {
        let same = run.parse() == Ok(events.run());
        number.parse().ok().filter(|_| same)
    });
    seen.unwrap_or(0)
}

fn kinds(names: Option<&str>) -> Result<HashSet<Kind>, ApiError> {
    let Some(names) = names else {
        return Ok(Kind::ALL.into());
    };
    let kind = |name: &str| {
        let found = Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name.trim());
        found.ok_or_else(|| {
            let all = Kind::ALL.map(Kind::name).join(", ");
            let message = format!("kinds is a list, separated by commas, of {all}");
            ApiError::invalid("invalid_parameter", "kinds", message)
        })
    };
    names.split(',').map(kind).collect()
}

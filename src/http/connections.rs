//! The server's connections: accepted up to a cap, closed when idle ones are in the way of new ones, and ended in order when the server stops.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{Id, JoinSet},
    time::sleep,
};

use super::{
    activity::{Activity, Tracked},
    transport::{Patience, Transport},
};
use crate::telemetry::Seldom;

/// Most bytes of what is read or written ahead for a connection.
const BUFFER: usize = 128 * 1024;

/// Most bytes of a head.
const MAX_HEAD: usize = 100 * 1024;

/// How long a client that reads nothing is waited for once the server stops.
const LAST_READ: Duration = Duration::from_secs(1);

/// How long a body may stand still before its connection makes room for another.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Pause between looks at what cannot wake us: a stopping connection, a full house.
const LOOK: Duration = Duration::from_millis(100);

/// All connections of a server.
pub(super) struct Connections {
    router: Router,
    patience: Patience,
    max: usize,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    open: HashMap<Id, Activity>,
    refused: Seldom,
}

impl Connections {
    /// `max`: how many at once.
    pub(super) fn new(
        router: Router,
        patience: Patience,
        max: usize,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            router,
            patience,
            max,
            stopping,
            tasks: JoinSet::new(),
            open: HashMap::new(),
            refused: Seldom::default(),
        }
    }

    /// Serves until told to stop; returns when the last connection has ended.
    pub(super) async fn serve(mut self, listener: TcpListener) {
        let mut stopping = self.stopping.clone();
        let mut stop = pin!(async move {
            // An error means that the sender is gone, which is a wish to stop, too.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        // One that waits for a place.
        let mut waiting = None;
        loop {
            self.reap();
            if self.open.len() < self.max {
                waiting = waiting.and_then(|stream| self.start(stream));
            } else if waiting.is_some() {
                self.close_idle();
            }
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.forget(&ended),
                () = sleep(LOOK), if waiting.is_some() => (),
                accepted = listener.accept(), if waiting.is_none() => match accepted {
                    Ok((stream, _)) => waiting = Some(stream),
                    Err(error) => self.pause(&error).await,
                },
            }
        }
        drop(listener);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Serves a connection; `None`: it waits no more.
    fn start(&mut self, stream: TcpStream) -> Option<TcpStream> {
        // Answers are whole writes: holding back the last packet only costs time.
        let _ = stream.set_nodelay(true);
        let activity = Activity::new();
        let transport = Transport::new(stream, activity.clone(), self.patience);
        let (router, stopping) = (self.router.clone(), self.stopping.clone());
        let task = self
            .tasks
            .spawn(serve_one(transport, router, activity.clone(), stopping));
        self.open.insert(task.id(), activity);
        None
    }

    /// Makes room: the connection that has waited longest for a request goes, else the one that has waited longest for a body.
    fn close_idle(&self) {
        let longest = |since: fn(&Activity) -> Option<Instant>| {
            let waiting = self.open.values();
            let waiting = waiting.filter_map(|activity| Some((since(activity)?, activity)));
            waiting.min_by_key(|(since, _)| *since)
        };
        let idle = longest(Activity::idle_since);
        let starved = || {
            let starved = longest(Activity::starved_since);
            starved.filter(|(since, _)| since.elapsed() >= LAST_BYTES)
        };
        if let Some((_, activity)) = idle.or_else(starved) {
            activity.close();
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(&ended);
        }
    }

    fn forget(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.open.remove(&id);
    }

    /// Too many open files, or a client that went at once: the next may be luckier.
    async fn pause(&self, error: &io::Error) {
        if let Some(left_out) = self.refused.now() {
            tracing::warn!(%error, left_out, "a connection cannot be accepted");
        }
        sleep(LOOK).await;
    }
}

async fn serve_one(
    transport: Transport,
    router: Router,
    activity: Activity,
    mut stopping: watch::Receiver<bool>,
) {
    let service = {
        let activity = activity.clone();
        service_fn(move |request| answer(router.clone(), activity.clone(), request))
    };
    let connection = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_header_size(MAX_HEAD)
        // The transport keeps the time: it can tell an idle connection from a head that stalls.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(transport), service);
    let mut connection = pin!(connection);
    let mut stopped = pin!(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = &mut stopped => break,
            () = activity.closing() => {
                if activity.idle_since().is_some() || activity.starved_since().is_some() {
                    return;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = sleep(LOOK) => (),
        }
        if activity.idle_since().is_some() || activity.is_blocked_for(LAST_READ) {
            return;
        }
    }
}

async fn answer(
    router: Router,
    activity: Activity,
    request: Request<Incoming>,
) -> Result<Response<Tracked>, Infallible> {
    let open = activity.begin();
    let mut request = request;
    request.extensions_mut().insert(activity);
    let response = TowerToHyperService::new(router)
        .call(request.map(Body::new))
        .await?;
    Ok(response.map(|body| Tracked::new(body, open)))
}

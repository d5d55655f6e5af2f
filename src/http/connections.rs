//! The server's connections: accepted up to a maximum, where an idle one is closed for a new one, and shut down gracefully.

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
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{Id, JoinSet},
    time::sleep,
};

use super::{
    activity::{Activity, TrackedBody},
    measure::Requests,
    transport::{Timeouts, Transport},
};
use crate::telemetry::{Gauge, LogThrottle, Metrics, series};

/// Most bytes that are buffered for a connection, or a stream of HTTP/2, in each direction; also of a request's head in HTTP/1.1.
const BUFFER: usize = 128 * 1024;

/// Most bytes of a request's head in HTTP/2.
const MAX_HEAD: u32 = 100 * 1024;

/// Most requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 64;

/// Bytes of a body that may be on their way in HTTP/2, of a request and of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often a connection looks whether its client still reads.
const UNREAD_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may read nothing of its answer once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// How long a body may stall before its connection may be closed for a new one.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// How often conditions without a notification are checked: a stopping connection, the maximum of connections.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// All connections of a server.
pub(super) struct Connections {
    router: Router,
    timeouts: Timeouts,
    requests: Requests,
    max_connections: usize,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    open: HashMap<Id, Activity>,
    /// Counts those that are open.
    count: Gauge,
    accept_errors: LogThrottle,
}

impl Connections {
    /// Serves `router` on at most `max_connections` connections at once.
    pub(super) fn new(
        router: Router,
        timeouts: Timeouts,
        max_connections: usize,
        metrics: &Metrics,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            router,
            timeouts,
            requests: Requests::new(metrics),
            max_connections,
            stopping,
            tasks: JoinSet::new(),
            open: HashMap::new(),
            count: metrics.gauge(&series::HTTP_CONNECTIONS, Vec::new()),
            accept_errors: LogThrottle::default(),
        }
    }

    /// Serves until the server stops; returns when the last connection has ended.
    pub(super) async fn serve(mut self, listener: TcpListener) {
        let mut stopping = self.stopping.clone();
        let mut stop = pin!(async move {
            // Without a sender the server stops, too.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        // A connection beyond the maximum.
        let mut waiting = None;
        loop {
            self.reap();
            if self.open.len() < self.max_connections {
                if let Some(stream) = waiting.take() {
                    self.start(stream);
                }
            } else if waiting.is_some() {
                self.close_idle();
            }
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.forget(&ended),
                () = sleep(POLL_INTERVAL), if waiting.is_some() => (),
                accepted = listener.accept(), if waiting.is_none() => match accepted {
                    Ok((stream, _)) => waiting = Some(stream),
                    Err(error) => self.accept_failed(&error).await,
                },
            }
        }
        drop(listener);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Serves a connection in a task of its own.
    fn start(&mut self, stream: TcpStream) {
        // Answers are written whole, so Nagle's algorithm would only delay their last packet.
        let _ = stream.set_nodelay(true);
        let activity = Activity::new();
        let transport = Transport::new(
            stream,
            activity.clone(),
            self.timeouts,
            self.requests.clone(),
        );
        let (router, stopping) = (self.router.clone(), self.stopping.clone());
        let write_timeout = self.timeouts.write();
        let connection =
            serve_connection(transport, router, activity.clone(), write_timeout, stopping);
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), activity);
        self.count.set(self.open.len() as f64);
    }

    /// Closes the connection that has been idle longest, or else the one whose body has stalled longest.
    fn close_idle(&self) {
        let longest = |since: fn(&Activity) -> Option<Instant>| {
            let waiting = self.open.values();
            let waiting = waiting.filter_map(|activity| Some((since(activity)?, activity)));
            waiting.min_by_key(|(since, _)| *since)
        };
        let idle = longest(Activity::idle_since);
        let stalled = || {
            let stalled = longest(Activity::stalled_since);
            stalled.filter(|(since, _)| since.elapsed() >= STALL_GRACE)
        };
        if let Some((_, activity)) = idle.or_else(stalled) {
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
        self.count.set(self.open.len() as f64);
    }

    /// Logs the error and waits a moment: too many files may be open, or the client went away at once.
    async fn accept_failed(&self, error: &io::Error) {
        if let Some(left_out) = self.accept_errors.ready() {
            tracing::warn!(%error, left_out, "cannot accept a connection");
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Serves one connection until it ends; once the server stops, until its open requests are answered.
async fn serve_connection(
    transport: Transport,
    router: Router,
    activity: Activity,
    write_timeout: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let service = {
        let activity = activity.clone();
        service_fn(move |request| respond(router.clone(), activity.clone(), request))
    };
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(transport), service));
    let mut stopped = pin!(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = &mut stopped => break,
            () = activity.closed() => {
                if activity.idle_since().is_some() || activity.stalled_since().is_some() {
                    return;
                }
            }
            () = sleep(UNREAD_INTERVAL) => {
                if activity.is_unread_for(write_timeout) {
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
            () = sleep(POLL_INTERVAL) => (),
        }
        if activity.idle_since().is_some() || activity.is_blocked_for(STOP_GRACE) {
            return;
        }
    }
}

/// HTTP/1.1, or HTTP/2 without TLS for a client that begins with its preface.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(BUFFER)
        // The transport has this timeout: it tells an idle connection from an incomplete head.
        .header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(BUFFER)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

async fn respond(
    router: Router,
    activity: Activity,
    request: Request<Incoming>,
) -> Result<Response<TrackedBody>, Infallible> {
    let open = activity.begin();
    let mut request = request;
    request.extensions_mut().insert(activity);
    let response = TowerToHyperService::new(router)
        .call(request.map(Body::new))
        .await?;
    Ok(response.map(|body| TrackedBody::new(body, open)))
}

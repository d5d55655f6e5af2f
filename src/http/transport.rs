//! A connection's socket with three timeouts: for the next request to begin, for its head to be complete, and for the client to read its
//! answer. An error response that hyper makes by itself gets the documented shape while it is written.

use std::{
    io,
    pin::Pin,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{activity::Activity, bare_response, error::ApiError, measure::Requests};
use crate::config::ServerConfig;

/// A client that reads fewer bytes than this within the write timeout counts as one that reads nothing.
const MIN_READ: usize = 16 * 1024;

/// How long bytes of the client are discarded after the last answer, so that it can read that answer.
const LINGER: Duration = Duration::from_secs(2);

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The timeouts of a connection.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// Until the next request begins.
    idle: Duration,
    /// From the first byte of a head to its last.
    head: Duration,
    /// Until the client reads more of an answer.
    write: Duration,
}

impl Timeouts {
    pub(super) fn new(server: &ServerConfig) -> Self {
        Self {
            idle: Duration::from_secs(server.idle_timeout_seconds),
            head: Duration::from_secs(server.header_timeout_seconds),
            write: Duration::from_secs(server.write_timeout_seconds),
        }
    }

    /// How long a client may read nothing of an answer.
    pub(super) fn write(&self) -> Duration {
        self.write
    }
}

type Timer = Option<Pin<Box<Sleep>>>;

/// A TCP stream with timeouts.
pub(super) struct Transport {
    stream: TcpStream,
    activity: Activity,
    timeouts: Timeouts,
    requests: Requests,
    awaited: AwaitedRequest,
    /// Runs while a request is awaited.
    timer: Timer,
    /// Runs while the socket takes no bytes.
    blocked: Timer,
    /// Bytes taken since `blocked` was set.
    taken: usize,
    replacement: Option<Replacement>,
    linger: Timer,
    preface: Preface,
}

/// How much of HTTP/2's preface the client has sent.
#[derive(Default)]
enum Preface {
    #[default]
    None,
    /// So many bytes, and nothing else yet.
    Begun(usize),
    Complete,
    /// It speaks HTTP/1.1.
    Other,
}

impl Preface {
    /// Whether the connection is HTTP/2, now that `bytes` came.
    fn is_http2(&mut self, bytes: &[u8]) -> bool {
        let seen = match self {
            Self::None => 0,
            Self::Begun(seen) => *seen,
            Self::Complete => return true,
            Self::Other => return false,
        };
        let left = &HTTP2_PREFACE[seen..];
        let more = left.len().min(bytes.len());
        *self = if bytes[..more] != left[..more] {
            Self::Other
        } else if more == left.len() {
            Self::Complete
        } else {
            Self::Begun(seen + more)
        };
        matches!(self, Self::Complete)
    }
}

/// The request that a connection waits for.
#[derive(Clone, Copy, Default, PartialEq)]
struct AwaitedRequest {
    /// As [`Activity::next_request`] counts.
    number: u64,
    /// Whether bytes of its head have come.
    begun: bool,
}

/// Bytes that are written in place of hyper's own response.
struct Replacement {
    bytes: Bytes,
    /// Bytes of hyper's response, which hyper is told were written.
    replaced: usize,
}

impl Transport {
    pub(super) fn new(
        stream: TcpStream,
        activity: Activity,
        timeouts: Timeouts,
        requests: Requests,
    ) -> Self {
        Self {
            stream,
            activity,
            timeouts,
            requests,
            awaited: AwaitedRequest::default(),
            timer: None,
            blocked: None,
            taken: 0,
            replacement: None,
            linger: None,
            preface: Preface::None,
        }
    }

    /// Notes that bytes came. The first bytes of a head restart the timer. In HTTP/2 frames come between requests, too: there only the idle
    /// timeout counts.
    fn bytes_arrived(&mut self, bytes: &[u8]) {
        if self.preface.is_http2(bytes) {
            self.activity.set_http2();
            if self.awaited.begun {
                (self.awaited.begun, self.timer) = (false, None);
            }
            return;
        }
        let Some(number) = self.activity.next_request() else {
            return;
        };
        let begun = AwaitedRequest {
            number,
            begun: true,
        };
        if self.awaited != begun {
            self.awaited = begun;
            self.timer = None;
        }
    }

    /// Whether the wait for a request has timed out.
    fn poll_timed_out(&mut self, task: &mut Task<'_>) -> bool {
        let Some(number) = self.activity.next_request() else {
            self.timer = None;
            return false;
        };
        if self.awaited.number != number {
            self.awaited = AwaitedRequest {
                number,
                begun: false,
            };
            self.timer = None;
        }
        let timeout = if self.awaited.begun {
            self.timeouts.head
        } else {
            self.timeouts.idle
        };
        poll_timer(&mut self.timer, timeout, task)
    }

    /// Ends the connection after a timeout: an idle one as if the client had closed it, one with an incomplete head by 408.
    fn end_read(&mut self) -> io::Result<()> {
        if !self.awaited.begun {
            return Ok(());
        }
        // No answer is being written, so the socket's buffer takes this in one write; if not, the client does not read.
        let answer = self.refuse(&bare_response::head_timeout());
        let _ = self.stream.try_write(&answer);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The bytes of an error that no route answers. It is counted here, since no layer sees it.
    fn refuse(&self, error: &ApiError) -> Bytes {
        self.requests.count_unread(error);
        bare_response::render(error)
    }

    fn poll_stream(
        &mut self,
        task: &mut Task<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Task<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.stream), task) {
            Poll::Ready(Ok(bytes)) => {
                self.taken += bytes;
                if self.taken >= MIN_READ {
                    self.unblock();
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                if self.blocked.is_none() {
                    self.taken = 0;
                    self.activity.set_blocked(true);
                }
                if poll_timer(&mut self.blocked, self.timeouts.write, task) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
            failed => failed,
        }
    }

    fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            self.activity.set_blocked(false);
        }
    }

    /// Writes the replacement, if there is one, and answers the length of what it replaces.
    fn poll_replacement(&mut self, task: &mut Task<'_>) -> Option<Poll<io::Result<usize>>> {
        let Replacement {
            mut bytes,
            replaced,
        } = self.replacement.take()?;
        while bytes.has_remaining() {
            match self.poll_stream(task, |stream, task| stream.poll_write(task, &bytes)) {
                Poll::Ready(Ok(sent)) if sent > 0 => bytes.advance(sent),
                Poll::Pending => {
                    self.replacement = Some(Replacement { bytes, replaced });
                    return Some(Poll::Pending);
                }
                failed => return Some(failed),
            }
        }
        Some(Poll::Ready(Ok(replaced)))
    }
}

/// Starts `timer` unless it runs, and returns whether it has run out.
fn poll_timer(timer: &mut Timer, after: Duration, task: &mut Task<'_>) -> bool {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(after)));
    timer.as_mut().poll(task).is_ready()
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(task, buffer) {
            Poll::Ready(Ok(())) => {
                let arrived = &buffer.filled()[before..];
                if !arrived.is_empty() {
                    self.bytes_arrived(arrived);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.poll_timed_out(task) => Poll::Ready(self.end_read()),
            other => other,
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() && self.activity.next_request().is_some() {
            self.replacement = bare_response::error_of(bytes).map(|error| Replacement {
                bytes: self.refuse(&error),
                replaced: bytes.len(),
            });
        }
        match self.poll_replacement(task) {
            Some(sent) => sent,
            None => self.poll_stream(task, |stream, task| stream.poll_write(task, bytes)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        match (filled.next(), filled.next()) {
            (Some(only), None) => self.poll_write(task, only),
            _ => self.poll_stream(task, |stream, task| {
                stream.poll_write_vectored(task, slices)
            }),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The system has taken every byte that was written.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.unblock();
        Pin::new(&mut self.stream).poll_flush(task)
    }

    /// Closes the write half, then reads for a moment: the system discards the answer if the socket is closed with unread bytes.
    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            match Pin::new(&mut self.stream).poll_shutdown(task) {
                Poll::Ready(Ok(())) => (),
                other => return other,
            }
        }
        if poll_timer(&mut self.linger, LINGER, task) {
            return Poll::Ready(Ok(()));
        }
        let mut discarded = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut self.stream).poll_read(task, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => (),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

//! One connection's socket with its limits in time: for the next request to begin, for its head to be complete, and for the client to read
//! its answer. An answer that the HTTP library makes by itself gets the documented shape on its way out.

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

use super::{activity::Activity, bare_answer};
use crate::config::ServerConfig;

/// A client that reads fewer bytes than this within the write time-out counts as one that reads nothing.
const LEAST_READ: usize = 16 * 1024;

/// How long what a client still sends is thrown away after the last answer, so that it can read that answer.
const LINGER: Duration = Duration::from_secs(2);

/// The limits in time of every connection.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// For a request to begin.
    idle: Duration,
    /// For a head to be complete, once it began.
    head: Duration,
    /// For a client to read on.
    write: Duration,
}

impl Patience {
    pub(super) fn new(server: &ServerConfig) -> Self {
        Self {
            idle: Duration::from_secs(server.idle_timeout_seconds),
            head: Duration::from_secs(server.header_timeout_seconds),
            write: Duration::from_secs(server.write_timeout_seconds),
        }
    }
}

type Timer = Option<Pin<Box<Sleep>>>;

/// The socket.
pub(super) struct Transport {
    stream: TcpStream,
    activity: Activity,
    patience: Patience,
    /// The request that `timer` waits for, and whether its head has begun.
    awaited: (u64, bool),
    timer: Timer,
    /// Runs while the socket takes nothing.
    blocked: Timer,
    /// Bytes taken since `blocked` was set.
    taken: usize,
    /// What is sent in place of the library's own answer, whose length is the number.
    instead: Option<(Bytes, usize)>,
    linger: Timer,
}

impl Transport {
    pub(super) fn new(stream: TcpStream, activity: Activity, patience: Patience) -> Self {
        Self {
            stream,
            activity,
            patience,
            awaited: (0, false),
            timer: None,
            blocked: None,
            taken: 0,
            instead: None,
            linger: None,
        }
    }

    /// Bytes came: those that begin a head start its own time.
    fn arrived(&mut self) {
        let Some(number) = self.activity.awaited() else {
            return;
        };
        if self.awaited != (number, true) {
            self.awaited = (number, true);
            self.timer = None;
        }
    }

    /// Nothing came: whether the client had time enough.
    fn is_late(&mut self, task: &mut Task<'_>) -> bool {
        let Some(number) = self.activity.awaited() else {
            self.timer = None;
            return false;
        };
        if self.awaited.0 != number {
            self.awaited = (number, false);
            self.timer = None;
        }
        let patience = if self.awaited.1 {
            self.patience.head
        } else {
            self.patience.idle
        };
        expired(&mut self.timer, patience, task)
    }

    /// The end of a connection that was waited for in vain.
    fn give_up(&mut self) -> io::Result<()> {
        if !self.awaited.1 {
            // As if the client had closed it: nothing was asked.
            return Ok(());
        }
        // Nothing else is being sent, so this is one write that the socket's buffer takes, or nobody reads it.
        let _ = self.stream.try_write(&bare_answer::timeout());
        Err(io::ErrorKind::TimedOut.into())
    }

    fn poll_stream(
        &mut self,
        task: &mut Task<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Task<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.stream), task) {
            Poll::Ready(Ok(bytes)) => {
                self.taken += bytes;
                if self.taken >= LEAST_READ {
                    self.unblock();
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                if self.blocked.is_none() {
                    self.taken = 0;
                    self.activity.set_blocked(true);
                }
                if expired(&mut self.blocked, self.patience.write, task) {
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

    /// Sends what stands in place of the library's answer; that answer's length is what the library hears.
    fn poll_instead(&mut self, task: &mut Task<'_>) -> Option<Poll<io::Result<usize>>> {
        let (mut bytes, length) = self.instead.take()?;
        while bytes.has_remaining() {
            match self.poll_stream(task, |stream, task| stream.poll_write(task, &bytes)) {
                Poll::Ready(Ok(sent)) if sent > 0 => bytes.advance(sent),
                Poll::Pending => {
                    self.instead = Some((bytes, length));
                    return Some(Poll::Pending);
                }
                failed => return Some(failed),
            }
        }
        Some(Poll::Ready(Ok(length)))
    }
}

/// Whether `timer`, started if it was not, has run out.
fn expired(timer: &mut Timer, after: Duration, task: &mut Task<'_>) -> bool {
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
                if buffer.filled().len() > before {
                    self.arrived();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_late(task) => Poll::Ready(self.give_up()),
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
        if self.instead.is_none() && self.activity.awaited().is_some() {
            self.instead = bare_answer::shaped(bytes).map(|answer| (answer, bytes.len()));
        }
        match self.poll_instead(task) {
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

    /// Everything is handed over to the system.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.unblock();
        Pin::new(&mut self.stream).poll_flush(task)
    }

    /// Says that no more comes, then reads on for a moment: closing a socket that holds unread bytes would make the system throw the
    /// answer away.
    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            match Pin::new(&mut self.stream).poll_shutdown(task) {
                Poll::Ready(Ok(())) => (),
                other => return other,
            }
        }
        if expired(&mut self.linger, LINGER, task) {
            return Poll::Ready(Ok(()));
        }
        let mut waste = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            match Pin::new(&mut self.stream).poll_read(task, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => (),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

//! Fixtures: a server on a socket, and clients that write and read bytes.

use std::{net::SocketAddr, time::Duration};

use kith::{app::App, http};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::support::settings;

/// More than anything here takes; a server that hangs takes longer.
pub(super) const CEILING: Duration = Duration::from_secs(60);

/// A running server.
pub(super) struct Live {
    pub(super) address: SocketAddr,
    pub(super) app: App,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    _folder: TempDir,
}

impl Live {
    pub(super) async fn start(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = App::start(settings(&folder, sets)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = http::serve(listener, app.clone(), async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async { serving.await.unwrap() });
        Self {
            address,
            app,
            stop,
            server,
            _folder: folder,
        }
    }

    /// Stops it; fails if that takes longer than `most`.
    pub(super) async fn stop_within(self, most: Duration) {
        self.stop.send(()).unwrap();
        timeout(most, self.server).await.unwrap().unwrap();
    }

    /// A connection on which `head` (lines, without the empty one) was sent, then `rest`.
    pub(super) async fn send(&self, head: &str, rest: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        write(&mut stream, head, rest).await;
        stream
    }

    /// A client that takes only a few kilobytes ahead of what it reads.
    pub(super) async fn narrow(&self, head: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        write(&mut stream, head, b"").await;
        stream
    }

    /// The answer to one request on a connection of its own.
    pub(super) async fn ask(&self, head: &str, rest: &[u8]) -> Raw {
        let head = format!("{head}\r\nconnection: close");
        answer(self.send(&head, rest).await).await
    }

    /// Whether `/healthz` answers, however long the connection waits for its turn.
    pub(super) async fn is_healthy(&self) -> bool {
        self.ask("GET /healthz HTTP/1.1\r\nhost: localhost", b"")
            .await
            .status
            == 200
    }
}

async fn write(stream: &mut TcpStream, head: &str, rest: &[u8]) {
    let mut bytes = format!("{head}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(rest);
    stream.write_all(&bytes).await.unwrap();
}

/// An answer as it came.
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Raw {
    /// Asserts the documented error shape and a request id; gives the code.
    pub(super) fn error(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap();
        assert!(self.head.contains("x-request-id: "), "{}", self.head);
        let fields = json["error"].as_object().unwrap();
        assert_eq!(fields.len(), 4);
        fields["code"].as_str().unwrap().to_owned()
    }
}

/// Reads until the server closes.
pub(super) async fn answer(mut stream: TcpStream) -> Raw {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(CEILING, read).await.unwrap().unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Raw {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: bytes[end + 4..].to_vec(),
    }
}

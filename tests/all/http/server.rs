//! The server on a socket: it answers the requests that it accepted, then stops.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use kith::{app::App, http};
use tokio::{net::TcpListener, sync::oneshot};

use crate::support::{png, settings, start_and_stop};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_cleanly_and_unlocks_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(listener, app, async {
        let _ = stopped.await;
    }));
    let answer = tokio::task::spawn_blocking(move || {
        let image = png(1);
        let mut socket = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            image.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&image).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    start_and_stop(&folder).await;
}

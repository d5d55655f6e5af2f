//! `kith events` on connections that break, fall silent or never answer.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::program::kith;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// A server that gives each connection in turn to `answer`, with its number and its request's head.
fn listen(
    connections: usize,
    answer: impl Fn(usize, &str, &mut TcpStream) + Send + 'static,
) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let work = spawn(move || {
        // All stay open until the last is answered.
        let mut open = Vec::new();
        for number in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            answer(
                number,
                &String::from_utf8_lossy(&head[..length]),
                &mut stream,
            );
            open.push(stream);
        }
    });
    (server, work)
}

fn follow(server: &str, arguments: &[&str]) -> Output {
    let silence = ["events", "--silence", "3", "--server", server];
    kith(&[&silence, arguments].concat())
}

fn event(number: u32) -> String {
    format!("id: 1-{number}\nevent: step\ndata: {{\"step\":{number}}}\n\n")
}

fn steps(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .map(|line: Value| line["data"]["step"].clone())
        .collect()
}

#[test]
fn a_server_that_never_answers_is_asked_again_and_given_up_in_the_end() {
    let began = Instant::now();
    let (server, work) = listen(2, |number, _, _| {
        if number == 1 {
            sleep(Duration::from_secs(6));
        }
    });
    let output = follow(&server, &["--retries", "1"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("trying again") && text.contains("gives no answer"),
        "{text}"
    );
    assert!(began.elapsed() < Duration::from_secs(30));
    work.join().unwrap();
}

#[test]
fn a_stream_that_falls_silent_goes_on_after_its_last_event_on_another_connection() {
    let (server, work) = listen(2, |number, request, stream| {
        let after = request.contains("last-event-id: 1-1\r\n");
        assert_eq!(after, number == 1, "{request}");
        let number = number as u32 + 1;
        write!(stream, "{HEAD}{}", event(number)).unwrap();
    });
    let output = follow(&server, &["--count", "2"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(steps(&output), [1, 2]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("fell silent"));
    work.join().unwrap();
}

#[test]
fn lines_that_only_keep_the_connection_are_no_silence() {
    let (server, work) = listen(1, |_, _, stream| {
        write!(stream, "{HEAD}").unwrap();
        // Longer than the silence, in all.
        for _ in 0..14 {
            sleep(Duration::from_millis(250));
            write!(stream, ":\n\n").unwrap();
        }
        write!(stream, "{}", event(7)).unwrap();
    });
    let output = follow(&server, &["--count", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(steps(&output), [7]);
    assert!(output.stderr.is_empty(), "{output:?}");
    work.join().unwrap();
}

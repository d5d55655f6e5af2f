//! Traces of the server as a process: what a collector gets, and that one that never answers delays nothing.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::png;

/// More than anything here takes, a stop with a hanging collector included.
const CEILING: Duration = Duration::from_secs(30);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

struct Process {
    child: Child,
    address: String,
    folder: TempDir,
    /// Open as long as the server prints.
    _output: BufReader<ChildStdout>,
}

impl Process {
    fn start(sets: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixed = [
            "encoder.side=32",
            "encoder.width=8",
            "training.enabled=false",
        ];
        let sets = fixed.iter().copied().chain(sets.iter().map(String::as_str));
        let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .args(sets.flat_map(|set| ["--set", set]))
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("kith listens on http://").unwrap();
        Self {
            address: address.to_owned(),
            child,
            folder,
            _output: output,
        }
    }

    /// Posts an image as the caller of [`TRACE`].
    fn post(&self, path: &str, image: &[u8]) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: image/png\r\n\
             traceparent: 00-{TRACE}-{CALLER}-01\r\ncontent-length: {}\r\n\r\n",
            image.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(image).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    }

    /// Stops it in order; answers how long that took, and the log.
    fn stop(mut self) -> (Duration, String) {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM).unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < CEILING, "it does not end");
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}");
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        (start.elapsed(), log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A collector that answers each export, and its URL.
fn collector() -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (exported, exports) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(export) = read_export(&mut stream) {
                // Before the answer, which lets the server end. The test may be over.
                let _ = exported.send(export);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.get_mut().write_all(answer).unwrap();
            }
        }
    });
    (url, exports)
}

fn read_export(stream: &mut BufReader<TcpStream>) -> Option<ExportTraceServiceRequest> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(ExportTraceServiceRequest::decode(&body[..]).unwrap())
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names of the spans below `parent`, in order.
fn below(spans: &[Span], parent: &Span) -> Vec<String> {
    let children = spans
        .iter()
        .filter(|span| span.parent_span_id == parent.span_id);
    let mut names: Vec<String> = children.map(|span| span.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn a_collector_gets_each_request_with_its_stages_below_the_caller() {
    let (url, exports) = collector();
    // What the log shows is no matter of the traces.
    let server = Process::start(&[
        format!("traces.endpoint={url}"),
        "log.filter=info".to_owned(),
        // The index encodes stored images when it comes to them, for no request.
        "search.enabled=false".to_owned(),
    ]);
    server.post("/v1/embeddings", &png(1));
    server.post("/v1/images", &png(2));
    // A refusal has a line in the log.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let (_, log) = server.stop();
    let exports: Vec<ExportTraceServiceRequest> = exports.try_iter().collect();
    let resources = exports.into_iter().flat_map(|export| export.resource_spans);
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    let spans: Vec<Span> = scopes.flat_map(|scope| scope.spans).collect();
    for (name, stages) in [
        (
            "POST /v1/embeddings",
            &["decode", "encode", "queue", "queue"][..],
        ),
        ("POST /v1/images", &["decode", "store"]),
        ("GET", &[]),
    ] {
        let request = spans.iter().find(|span| span.name == name);
        let request = request.unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
        assert_eq!(hex(&request.trace_id), TRACE);
        assert_eq!(hex(&request.parent_span_id), CALLER);
        assert_eq!(request.kind, SpanKind::Server as i32);
        assert!(request.end_time_unix_nano >= request.start_time_unix_nano);
        assert_eq!(below(&spans, request), stages, "{name}");
        let status = request
            .attributes
            .iter()
            .any(|one| one.key == "http.response.status_code");
        assert!(status, "{:?}", request.attributes);
    }
    assert!(
        spans.iter().all(|span| hex(&span.trace_id) == TRACE),
        "{spans:#?}"
    );
    let line = log.lines().find(|line| line.contains("refused")).unwrap();
    assert!(line.contains(TRACE), "{line}");
}

#[test]
fn a_collector_that_never_answers_delays_nothing() {
    // Connections wait in its queue for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let server = Process::start(&[format!("traces.endpoint={url}")]);
    for seed in 0..4 {
        server.post("/v1/embeddings", &png(seed));
    }
    // The sending is under way.
    let _hanging = listener.accept().unwrap();
    let (took, _) = server.stop();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_collector_that_is_away_is_named_in_the_log_and_fails_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    drop(listener);
    let server = Process::start(&[format!("traces.endpoint={url}")]);
    server.post("/v1/embeddings", &png(1));
    let (_, log) = server.stop();
    assert!(log.contains("traces cannot be sent"), "{log}");
}

#[test]
fn without_an_endpoint_a_traceparent_changes_nothing() {
    let server = Process::start(&["log.filter=trace".to_owned()]);
    server.post("/v1/embeddings", &png(1));
    let (_, log) = server.stop();
    assert!(!log.contains(&format!("trace_id={TRACE}")), "{log}");
}

//! The server as a process: signals that stop it, its log, and its memory.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// More than a stop takes, less than `server.grace_seconds` leaves to requests.
const CEILING: Duration = Duration::from_secs(60);

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
    folder: TempDir,
}

impl Process {
    /// With a small input side.
    fn start(width: u32) -> Self {
        Self::with(&["encoder.side=32", &format!("encoder.width={width}")])
    }

    /// With settings on top of those that every test has.
    fn with(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .args(sets.iter().flat_map(|set| ["--set", set]))
            .args([
                "--set",
                "training.enabled=false",
                "--set",
                "server.grace_seconds=600",
            ])
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("kith listens on http://").unwrap();
        Self {
            address: address.to_owned(),
            child,
            output,
            folder,
        }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < CEILING, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_closed_terminal_stops_the_server_in_order() {
    let mut process = Process::start(8);
    process.signal(Signal::HUP);
    assert_eq!(process.end().code(), Some(0));
    let mut rest = String::new();
    process.output.read_to_string(&mut rest).unwrap();
    assert!(process.folder.path().join("kith.db").exists());
}

#[test]
fn every_refusal_is_in_the_log_under_the_id_of_its_answer() {
    let process = Process::start(8);
    for request in [
        "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&process.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let id = answer.split("x-request-id: ").nth(1).unwrap();
        let id = id.lines().next().unwrap();
        // The line is written before the answer is sent.
        let log = std::fs::read_to_string(process.folder.path().join("log")).unwrap();
        assert!(log.contains(id), "{request}: {log}");
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut process = Process::start(32);
    let mut answer = String::new();
    process
        .get("/v1/models/kith")
        .read_to_string(&mut answer)
        .unwrap();
    let id = answer.split("\"checkpoint\":\"").nth(1).unwrap();
    let id = &id[..36];
    // A client that reads on, slowly, is waited for: half of the grace, which is longer than this test.
    let mut reader = process.get(&format!("/v1/checkpoints/{id}/files/model.safetensors"));
    // The download has begun: a connection without a request would be closed at once.
    reader.read_exact(&mut [0]).unwrap();
    std::thread::spawn(move || {
        let mut chunk = [0; 1 << 16];
        while reader.read_exact(&mut chunk).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    process.signal(Signal::INT);
    let start = Instant::now();
    while TcpStream::connect(&process.address).is_ok() {
        assert!(start.elapsed() < CEILING, "it still listens");
    }
    assert_eq!(process.child.try_wait().unwrap(), None);
    process.signal(Signal::INT);
    let status = process.end();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}

/// Kilobytes of the process that are in memory.
#[cfg(target_os = "linux")]
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap()
}

/// At full width, from the starter encoder where the program has it. What a start used goes back to the system some seconds later.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_does_not_train_has_its_weights_in_memory_once() {
    // 150 MB, of which the program's file has 50. A second copy of the weights would be 45 more.
    const MAX_KB: u64 = 180 << 10;
    let process = Process::with(&[
        "encoder.width=64",
        "serving.threads=2",
        "training.threads=2",
    ]);
    let start = Instant::now();
    while resident(&process) > MAX_KB {
        let found = resident(&process);
        assert!(start.elapsed() < CEILING, "{found} kB, more than {MAX_KB}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

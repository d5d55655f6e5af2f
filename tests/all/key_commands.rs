//! `kith key` beside a running server and before one, and what the server logs about keys.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// A key that is made or revoked counts within a second; the test's machine may be slow.
const NOTICED: Duration = Duration::from_secs(10);

/// A data folder and the commands on it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> String {
        self.0.path().join("data").display().to_string()
    }

    fn key(&self, arguments: &[&str]) -> Output {
        let data = self.data();
        kith(
            &[&["key"], arguments, &["--data-dir", &data]].concat(),
            None,
        )
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.key(&[arguments, &["--json"]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn create(&self, name: &str, scope: &str) -> Value {
        self.json(&["create", "--name", name, "--scope", scope])
    }
}

fn kith(arguments: &[&str], key: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.env_remove("KITH_KEY").args(arguments);
    if let Some(key) = key {
        command.env("KITH_KEY", key);
    }
    command.output().unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server on all addresses, which logs all that it can.
struct Server {
    child: Child,
    /// Kept open: a server whose output nobody takes cannot print.
    _output: BufReader<ChildStdout>,
    port: u16,
    log: PathBuf,
}

impl Server {
    fn start(folder: &Folder) -> Self {
        let log = folder.0.path().join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(folder.data())
            .args(["--set", "encoder.side=32", "--set", "encoder.width=8"])
            .args(["--set", "training.enabled=false"])
            .args(["--set", "log.filter=trace"])
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self {
            child,
            _output: output,
            port,
            log,
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The status of a request's answer.
    fn ask(&self, method: &str, path: &str, key: &Value, id: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let key = key
            .as_str()
            .map(|key| format!("authorization: Bearer {key}\r\n"));
        let body = r#"{"checkpoint": "auto"}"#;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: {id}\r\nconnection: close\r\n{}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            key.unwrap_or_default(),
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].parse().unwrap()
    }

    /// Waits until a request is answered with `status`.
    fn wait_for(&self, path: &str, key: &Value, status: u16) {
        let start = Instant::now();
        while self.ask("GET", path, key, "wait") != status {
            assert!(start.elapsed() < NOTICED, "{path} is never {status}");
            sleep(Duration::from_millis(50));
        }
    }

    /// The audit lines that contain `part`.
    fn audit(&self, part: &str) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        let lines = log.lines().filter(|line| line.contains("audit: "));
        let lines = lines.filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_key_opens_a_public_address_and_keys_change_while_the_server_runs() {
    let folder = Folder::new();
    let data = folder.data();
    let listen = ["serve", "--listen", "0.0.0.0:0", "--data-dir", &data];
    let refused = complaint(&kith(&listen, None));
    assert!(refused.contains("kith key create"), "{refused}");
    assert!(!Path::new(&data).exists(), "nothing is written before");

    // Before the first start there is no database yet.
    let admin = folder.create("ops", "admin");
    let server = Server::start(&folder);
    assert_eq!(server.ask("GET", "/healthz", &Value::Null, "a"), 200);
    assert_eq!(server.ask("GET", "/v1/models", &Value::Null, "b"), 401);
    assert_eq!(server.ask("GET", "/v1/models", &admin["key"], "c"), 200);

    let embed = folder.create("shop", "embed");
    server.wait_for("/v1/models", &embed["key"], 200);
    let put = |key: &Value, id| server.ask("PUT", "/v1/aliases/shop", key, id);
    assert_eq!(put(&embed["key"], "refused"), 403);
    assert_eq!(put(&admin["key"], "done"), 200);
    let revoked = folder.json(&["revoke", "shop"]);
    assert_eq!(
        (&revoked["id"], &revoked["status"]),
        (&embed["id"], &"revoked".into())
    );
    server.wait_for("/v1/models", &embed["key"], 401);

    for (key, id, status) in [(&admin, "done", 200), (&embed, "refused", 403)] {
        let lines = server.audit(&format!("request_id=\"{id}\""));
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [
            format!("key_id={}", key["id"].as_str().unwrap()),
            format!("key={}", key["name"]),
            "method=PUT".to_owned(),
            "path=\"/v1/aliases/shop\"".to_owned(),
            format!("status={status}"),
        ] {
            assert!(lines[0].contains(&part), "{part}: {}", lines[0]);
        }
    }
    assert_eq!(server.audit("/v1/models"), [""; 0], "reading is no act");
    assert_eq!(server.audit("a key is accepted").len(), 2);
    assert_eq!(server.audit("a key is revoked").len(), 1);
    let log = fs::read_to_string(&server.log).unwrap();
    for key in [&admin, &embed] {
        let text = key["key"].as_str().unwrap();
        assert!(!log.contains(&text[5..]), "the log has a key");
    }
}

#[test]
fn commands_send_the_key_they_are_given_and_say_where_one_is_missing() {
    let folder = Folder::new();
    let made = folder.create("ops", "admin");
    let server = Server::start(&folder);
    let (url, key) = (server.url(), made["key"].as_str().unwrap());
    let list = ["checkpoint", "list", "--server", &url];
    let refused = complaint(&kith(&list, None));
    assert!(
        refused.contains("--key") && refused.contains("KITH_KEY"),
        "{refused}"
    );
    assert!(kith(&list, Some(key)).status.success());
    let named = kith(&[&list[..], &["--key", key]].concat(), Some("another"));
    assert!(named.status.success(), "the argument wins");
    assert!(kith(&["health", "--server", &url], None).status.success());
    let help = kith(&["embed", "--help"], Some(key));
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("KITH_KEY") && !help.contains(key));
}

#[test]
fn keys_are_listed_without_their_text_and_names_are_unique_while_in_use() {
    let folder = Folder::new();
    let missing = complaint(&folder.key(&["list"]));
    assert!(missing.contains("not a data folder"), "{missing}");
    complaint(&folder.key(&["revoke", "shop"]));
    assert!(!Path::new(&folder.data()).exists());

    let shop = ["create", "--name", "shop", "--scope", "embed"];
    let first = folder.json(&[&shop[..], &["--expires", "90d"]].concat());
    assert!(first["expires_at"].is_string());
    let twice = complaint(&folder.key(&shop));
    assert!(twice.contains("named shop already"), "{twice}");
    folder.json(&["revoke", first["id"].as_str().unwrap()]);
    let second = folder.json(&shop);
    assert_ne!(first["id"], second["id"]);

    let listed = folder.json(&["list"]);
    let rows = listed["data"].as_array().unwrap();
    let states: Vec<_> = rows.iter().map(|row| row["status"].as_str()).collect();
    assert_eq!(states, [Some("revoked"), Some("active")]);
    assert!(rows.iter().all(|row| row.get("key").is_none()));
    let shown = String::from_utf8(folder.key(&["list"]).stdout).unwrap();
    assert!(
        shown.contains("shop") && !shown.contains("kith_"),
        "{shown}"
    );

    for (name, scope, expires, part) in [
        ("a b", "embed", "1d", "cannot be a key's name"),
        ("a", "root", "1d", "embed, write or admin"),
        ("a", "embed", "soon", "is no time"),
        ("a", "embed", "2001-01-01", "is over"),
    ] {
        let arguments = ["--name", name, "--scope", scope, "--expires", expires];
        let refused = complaint(&folder.key(&[&["create"], &arguments[..]].concat()));
        assert!(refused.contains(part), "{refused}");
    }
}

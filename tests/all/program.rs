//! Runs the program, alone or beside a server.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use kith::{app::App, http};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::support::{png, settings};

pub(crate) fn kith(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.args(arguments).output().unwrap()
}

/// Standard output of a command that must succeed.
pub(crate) fn told(arguments: &[&str]) -> String {
    let output = kith(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that must fail.
pub(crate) fn complaint(arguments: &[&str]) -> String {
    let output = kith(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A server on a free port, for commands that block.
pub(crate) async fn beside_a_server(sets: &[&str], work: impl FnOnce(&Server) + Send + 'static) {
    let data = tempfile::tempdir().unwrap();
    let app = App::start(settings(&data, sets)).await.unwrap();
    beside(app, work).await;
}

/// The same for an app that is there, which is stopped in the end.
pub(crate) async fn beside(app: App, work: impl FnOnce(&Server) + Send + 'static) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server(format!("http://{}", listener.local_addr().unwrap()));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(http::serve(listener, app, async {
        let _ = stopped.await;
    }));
    let worked = tokio::task::spawn_blocking(move || work(&server)).await;
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    worked.unwrap();
}

/// The address of a running server.
pub(crate) struct Server(pub(crate) String);

impl Server {
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        told(&[arguments, &["--server", &self.0]].concat())
    }

    pub(crate) fn complaint(&self, arguments: &[&str]) -> String {
        complaint(&[arguments, &["--server", &self.0, "--retries", "0"]].concat())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.told(&[arguments, &["--json"]].concat())).unwrap()
    }
}

/// A folder with the images `0.png`, `1.png` and so on.
pub(crate) fn images(count: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..count {
        fs::write(folder.path().join(format!("{seed}.png")), png(seed)).unwrap();
    }
    folder
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// jemalloc tells its settings at the end.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn unused_memory_goes_back_to_the_system_after_a_second() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    let command = command
        .arg("--version")
        .env("_RJEM_MALLOC_CONF", "stats_print:true");
    let told = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(told.contains("opt.dirty_decay_ms: 1000 "), "{told}");
}

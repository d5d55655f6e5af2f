//! `kith events`: follows what happens on a running server, one JSON document a line. A connection on which nothing comes, not even the lines by which
//! a server keeps it, is given up and opened again.

use std::{
    io::{self, BufRead, BufReader, Write},
    thread::sleep,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{Client, back_off},
    client_error::ClientError,
    path_segment::segment,
    server_args::ServerArgs,
};

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only these kinds: step, training, checkpoint, evaluation, promotion, alarm
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Go on after the event with this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// End after so many events [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Open the stream again when nothing came for so long. A server sends a line every 15 seconds, whatever happens
    #[arg(long, value_name = "SECONDS", default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..))]
    silence: u64,
}

/// Prints events until `--count`, or until standard output is closed. A stream that breaks off or falls silent is opened again after its last event.
pub(crate) fn run(args: &EventsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let kinds: Vec<String> = args.kinds.iter().map(|kind| segment(kind)).collect();
    let query = if kinds.is_empty() {
        String::new()
    } else {
        format!("?kinds={}", kinds.join(","))
    };
    let path = format!("/v1/events{query}");
    let mut follow = Follow {
        last: args.after.clone(),
        left: args.count,
    };
    let silence = Duration::from_secs(args.silence);
    let mut failures = 0;
    loop {
        let stream = match client.follow(&path, follow.last.as_deref(), silence) {
            Ok(stream) => stream,
            Err(error @ ClientError::Unreachable { .. }) if failures < args.server.retries() => {
                eprintln!("{error}; trying again");
                sleep(back_off(failures));
                failures += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match follow.print(BufReader::new(stream), &mut io::stdout().lock()) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                eprintln!("the stream ended or fell silent; opening it again");
                sleep(back_off(0));
                failures = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("standard output cannot be written"),
        }
    }
}

/// Where in the stream we are.
struct Follow {
    last: Option<String>,
    /// Events to print yet; `None`: without end.
    left: Option<u64>,
}

impl Follow {
    /// Prints the events of a stream (the format is that of server-sent events, HTML Living Standard 9.2); true once enough are printed. A stream that
    /// breaks off is no error.
    fn print(&mut self, stream: impl BufRead, out: &mut impl Write) -> io::Result<bool> {
        let (mut id, mut kind, mut data) = (None, None, String::new());
        for line in stream.lines() {
            let Ok(line) = line else { return Ok(false) };
            match line
                .split_once(':')
                .map_or((line.as_str(), ""), |(name, value)| {
                    (name, value.trim_start())
                }) {
                ("id", value) => id = Some(value.to_owned()),
                ("event", value) => kind = Some(value.to_owned()),
                ("data", value) => data.push_str(value),
                ("", "") if line.is_empty() && !data.is_empty() => {
                    let document: Value =
                        serde_json::from_str(&data).unwrap_or_else(|_| json!(data));
                    writeln!(
                        out,
                        "{}",
                        json!({"id": id, "event": kind, "data": document})
                    )?;
                    out.flush()?;
                    self.last = id.take().or(self.last.take());
                    self.left = self.left.map(|left| left - 1);
                    if self.left == Some(0) {
                        return Ok(true);
                    }
                    (kind, data) = (None, String::new());
                }
                _ => (),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: 1-1\nevent: step\ndata: {\"step\":1}\n\nid: 1-2\nevent: alarm\ndata: {}\n\nid: 1-3\nevent: st";

    #[test]
    fn whole_events_are_printed_and_a_torn_one_is_asked_for_again() {
        let mut follow = Follow {
            last: None,
            left: None,
        };
        let mut out = Vec::new();
        assert!(!follow.print(STREAM.as_bytes(), &mut out).unwrap());
        let lines: Vec<Value> = out
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        assert_eq!(
            lines[0],
            json!({"id": "1-1", "event": "step", "data": {"step": 1}})
        );
        assert_eq!((lines.len(), follow.last.as_deref()), (2, Some("1-2")));
    }

    #[test]
    fn it_ends_after_as_many_as_were_asked_for() {
        let mut follow = Follow {
            last: None,
            left: Some(1),
        };
        let mut out = Vec::new();
        assert!(follow.print(STREAM.as_bytes(), &mut out).unwrap());
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}

//! `kith ingest`: posts the pairs of a CSV or of a folder to a running server, in several requests at once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::{
    client::Client,
    client_error::ClientError,
    folder,
    pair_list::PairList,
    server_args::ServerArgs,
    stored::{Stored, StoredPairs},
    upload::{Line, Outcome, Uploader},
};

/// Most characters of a request; a larger pair goes alone.
const REQUEST_BYTES: usize = 8 << 20;
/// Most failures that are printed; the rest is only counted.
const MAX_REASONS: usize = 10;
const BAR: &str = "{bar:30} {pos}/{len} pairs, {per_sec}, {eta} left";

#[derive(Args, Debug)]
pub(crate) struct IngestArgs {
    /// A CSV with the columns anchor, positive, group, weight (paths relative to it), or a folder with one sub-folder of images for each thing
    #[arg(value_name = "PAIRS.csv|FOLDER")]
    input: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Most pairs in a request
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Most pairs made of one sub-folder
    #[arg(long, value_name = "N", default_value_t = 10)]
    pairs_per_thing: usize,
}

/// Counts of the outcomes so far.
#[derive(Default)]
struct Tally {
    new: usize,
    duplicates: usize,
    held_out: usize,
    failed: Vec<String>,
    /// Why the server does not answer; the workers then stop.
    broken: Option<ClientError>,
}

/// The state that the workers share.
struct Run<'a> {
    uploader: Uploader<'a>,
    list: &'a PairList,
    batch: usize,
    bar: ProgressBar,
    queue: Mutex<std::vec::IntoIter<usize>>,
    state: Mutex<(Tally, StoredPairs)>,
}

pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let list = PairList::read(&args.input, args.pairs_per_thing)?;
    folder::report(&list.left_out);
    let client = Client::new(&args.server);
    let fingerprint = list.fingerprint(client.base());
    let (stored, mut done) = StoredPairs::open(&args.input, fingerprint);
    if !knows(&client, &done)? {
        done.clear();
    }
    let mut tally = Tally::default();
    tally.failed.clone_from(&list.problems);
    done.values().for_each(|stored| tally.count(stored));
    let mut order = list.order();
    order.retain(|index| !done.contains_key(index));
    let bar =
        ProgressBar::new(list.pairs.len() as u64).with_style(ProgressStyle::with_template(BAR)?);
    bar.set_position(done.len() as u64);
    bar.reset_eta();
    if !done.is_empty() {
        bar.suspend(|| {
            eprintln!(
                "continuing after {} pairs that were posted before",
                done.len()
            )
        });
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let run = Run {
        uploader: Uploader::new(&client, &list.pairs, args.server.retries()),
        list: &list,
        batch: args.batch.into(),
        bar,
        queue: Mutex::new(order.into_iter()),
        state: Mutex::new((tally, stored)),
    };
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| run.work());
        }
    });
    run.report(&client)
}

/// Whether the server has the newest pair of the journal; a new data folder behind the same address has not.
fn knows(client: &Client, done: &HashMap<usize, Stored>) -> Result<bool, ClientError> {
    let Some(stored) = done.values().max_by_key(|stored| &stored.id) else {
        return Ok(true);
    };
    match client.get(&format!("/v1/pairs/{}", stored.id)) {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { status: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Tally {
    fn count(&mut self, stored: &Stored) {
        self.new += usize::from(!stored.duplicate);
        self.duplicates += usize::from(stored.duplicate);
        self.held_out += usize::from(stored.holdout);
    }
}

impl Run<'_> {
    fn work(&self) {
        let mut over = None;
        loop {
            let (lines, mut outcomes) = self.gather(&mut over);
            if lines.is_empty() && outcomes.is_empty() {
                return;
            }
            let posted = self.uploader.post(lines);
            let broken = match posted {
                Ok(posted) => {
                    outcomes.extend(posted);
                    None
                }
                Err(error) => Some(error),
            };
            let stop = broken.is_some();
            self.settle(outcomes, broken);
            if stop {
                return;
            }
        }
    }

    /// The next request, and the pairs whose files cannot be read. `over` is a line that did not fit in the previous request.
    fn gather(&self, over: &mut Option<Line>) -> (Vec<Line>, Vec<(usize, Outcome)>) {
        let mut lines: Vec<Line> = over.take().into_iter().collect();
        let mut failed = Vec::new();
        let mut bytes: usize = lines.iter().map(Line::bytes).sum();
        while lines.len() < self.batch {
            let Some(index) = self.next() else { break };
            match self.uploader.line(index) {
                Ok(line) if lines.is_empty() || bytes + line.bytes() <= REQUEST_BYTES => {
                    bytes += line.bytes();
                    lines.push(line);
                }
                Ok(line) => {
                    *over = Some(line);
                    break;
                }
                Err(cause) => failed.push((index, Outcome::Failed(cause))),
            }
        }
        (lines, failed)
    }

    /// The next pair; `None` at the end, or once the server does not answer.
    fn next(&self) -> Option<usize> {
        let broken = self.state().0.broken.is_some();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next().filter(|_| !broken)
    }

    fn settle(&self, outcomes: Vec<(usize, Outcome)>, broken: Option<ClientError>) {
        let count = outcomes.len() as u64;
        let mut answered = Vec::with_capacity(outcomes.len());
        let mut state = self.state();
        for (index, outcome) in outcomes {
            match outcome {
                Outcome::Stored(stored) => {
                    state.0.count(&stored);
                    answered.push((index, stored));
                }
                Outcome::Failed(cause) => {
                    let source = &self.list.pairs[index].source;
                    state.0.failed.push(format!("{source}: {cause}"));
                }
            }
        }
        state.1.add(&answered);
        state.0.broken = state.0.broken.take().or(broken);
        drop(state);
        self.bar.inc(count);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Tally, StoredPairs)> {
        // Counts that a panic left incomplete are still worth a report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(self, client: &Client) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        let (tally, stored) = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let Tally {
            new,
            duplicates,
            held_out,
            failed,
            broken,
        } = tally;
        let total = self.list.pairs.len() + self.list.problems.len();
        let open = total - new - duplicates - failed.len();
        println!(
            "{} of {total} pairs are at {} ({}): {new} new, {duplicates} duplicates; {held_out} of them held out; {} failed",
            new + duplicates,
            client.base(),
            HumanDuration(self.bar.elapsed()),
            failed.len()
        );
        for reason in failed.iter().take(MAX_REASONS) {
            eprintln!("  {reason}");
        }
        if failed.len() > MAX_REASONS {
            eprintln!("  and {} more", failed.len() - MAX_REASONS);
        }
        if let Some(error) = broken {
            bail!("{error}; {open} pairs are left: run the same command again to continue");
        }
        stored.finish();
        match failed.len() {
            0 => Ok(()),
            count => bail!("{count} pairs failed: run the same command again when they are fixed"),
        }
    }
}

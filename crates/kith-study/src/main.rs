//! `kith-study`: runs one experiment and shows its progress. The exit code is 1 when a claim was judged and does not hold.
#![allow(clippy::print_stdout)]
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use kith_nn::{Compute, CudaConfig, Device, Purpose};
use kith_pixels::Limits;
use kith_study::{Order, Outcome, Progress, Scale, StudyKind};

/// Limits on the images of a study: those that the server has by default.
const LIMITS: Limits = Limits {
    max_bytes: 32 << 20,
    max_pixels: 48 << 20,
    decode_memory_mb: 1024,
};

/// Runs one of the EMC² paper's experiments on a folder of images.
#[derive(Parser, Debug)]
#[command(version)]
struct StudyArgs {
    /// What is studied
    #[arg(value_enum)]
    study: Study,
    /// A folder of images: one sub-folder for each label, train/ and test/ of such, a manifest.csv, a flat folder, or STL-10's binary
    /// files. Not needed by stationarity and cost
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Folder of points, plots and summary; a study that was broken off goes on from what is there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seeds, one run of each series for each
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,2,3"
    )]
    seeds: Vec<u64>,
    /// How much is measured
    #[arg(long, value_enum, default_value = "smoke")]
    scale: Size,
    /// A setting of the study, such as steps=500; may be given several times. The summary lists them all
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads to compute with; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Study {
    /// Do chains sample the softmax
    Stationarity,
    /// Is the mean gradient the global loss's
    Gradient,
    /// Gradient error and global loss along training (the paper's figure 2)
    Figure2,
    /// Accuracy of the features along training (the paper's figure 1)
    Figure1,
    /// What a step and the chain table cost
    Cost,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Size {
    /// Under a minute
    Smoke,
    /// Under an hour on two cores
    Laptop,
    /// The published setting
    Paper,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    match run(&StudyArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kith-study: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &StudyArgs) -> anyhow::Result<()> {
    let order = order(args)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let bar = Bar(ProgressBar::new(0));
    let outcome = pool.install(|| kith_study::conduct(&order, &bar))?;
    print(&outcome);
    if outcome.unjudged.is_none() && !outcome.holds() {
        bail!(
            "not all claims of the study hold: see {}",
            outcome.summary.display()
        );
    }
    Ok(())
}

fn order(args: &StudyArgs) -> anyhow::Result<Order> {
    let kind = match args.study {
        Study::Stationarity => StudyKind::Stationarity,
        Study::Gradient => StudyKind::Gradient,
        Study::Figure2 => StudyKind::Figure2,
        Study::Figure1 => StudyKind::Figure1,
        Study::Cost => StudyKind::Cost,
    };
    let scale = match args.scale {
        Size::Smoke => Scale::Smoke,
        Size::Laptop => Scale::Laptop,
        Size::Paper => Scale::Paper,
    };
    // What is measured against exact values is computed exactly.
    let cuda = CudaConfig {
        compute: Compute::F32,
        ..CudaConfig::default()
    };
    Ok(Order {
        kind,
        scale,
        images: args.images.clone(),
        out: args.out.clone(),
        seeds: args.seeds.clone(),
        sets: args.set.clone(),
        device: Device::open(&args.device, Purpose::Training, &cuda)?,
        limits: LIMITS,
    })
}

fn print(outcome: &Outcome) {
    for claim in &outcome.claims {
        let holds = match (&outcome.unjudged, claim.holds) {
            (Some(_), _) => "not judged",
            (None, true) => "holds",
            (None, false) => "FAILS",
        };
        println!("{holds}  {}  ({})", claim.text, claim.evidence);
    }
    if let Some(reason) = &outcome.unjudged {
        println!("{reason}");
    }
    println!("{}", outcome.summary.display());
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, total: u64, done: u64) {
        let style = "{elapsed_precise} [{bar:30}] {percent}%, {eta_precise} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.0.set_style(style);
        }
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.reset_eta();
        self.0.enable_steady_tick(Duration::from_secs(1));
    }

    fn turn_to(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn advance(&self, units: u64) {
        self.0.inc(units);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

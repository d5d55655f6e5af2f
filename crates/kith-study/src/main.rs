//! `kith-study`: runs one experiment and shows its progress. The exit code is 1 when a claim was judged and does not hold.
#![allow(clippy::print_stdout)]
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use kith_nn::{Compute, CudaConfig, Device, Purpose};
use kith_pixels::Limits;
use kith_study::{Outcome, Progress, Scale, StudyConfig, StudyKind, run_study};

/// Limits on the images of a study, the same as the server's defaults.
const LIMITS: Limits = Limits {
    max_bytes: 32 << 20,
    max_pixels: 48 << 20,
    decode_memory_mb: 1024,
};

/// Runs one of the EMC² paper's experiments on a folder of images.
#[derive(Parser, Debug)]
#[command(version)]
struct StudyArgs {
    /// The study to run
    #[arg(value_enum)]
    study: Study,
    /// A folder of images: one sub-folder for each label, train/ and test/ of such, a manifest.csv, a flat folder, or STL-10's binary
    /// files. Not needed by stationarity and cost
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Folder of points, plots and summary; an interrupted study continues from what is there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seeds; every series runs once with each
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,2,3"
    )]
    seeds: Vec<u64>,
    /// How much is measured: the preset of the settings
    #[arg(long, value_enum, default_value = "smoke")]
    scale: Size,
    /// Overrides a setting of the study, such as steps=500; may be given several times. The summary lists all settings
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// What a GPU computes in: f32, since the studies compare with exact values; the study `cost` may be asked for tf32 or bf16
    #[arg(long, value_enum, default_value = "f32")]
    compute: ComputeType,
    /// Number of threads to compute with; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Study {
    /// Whether the chains sample the softmax
    Stationarity,
    /// Whether the mean gradient is that of the global loss
    Gradient,
    /// Gradient error and global loss along training (the paper's figure 2)
    Figure2,
    /// Accuracy of the features along training (the paper's figure 1)
    Figure1,
    /// Time and memory of a step and of the chain table
    Cost,
    /// One encoder or two for sides that look nothing alike
    Towers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ComputeType {
    F32,
    Tf32,
    Bf16,
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
    let config = config(args)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let bar = Bar(ProgressBar::new(0));
    let outcome = pool.install(|| run_study(&config, &bar))?;
    print(&outcome);
    if outcome.unjudged.is_none() && !outcome.holds() {
        bail!(
            "not all claims of the study hold: see {}",
            outcome.summary.display()
        );
    }
    Ok(())
}

fn config(args: &StudyArgs) -> anyhow::Result<StudyConfig> {
    let kind = match args.study {
        Study::Stationarity => StudyKind::Stationarity,
        Study::Gradient => StudyKind::Gradient,
        Study::Figure2 => StudyKind::Figure2,
        Study::Figure1 => StudyKind::Figure1,
        Study::Cost => StudyKind::Cost,
        Study::Towers => StudyKind::Towers,
    };
    let scale = match args.scale {
        Size::Smoke => Scale::Smoke,
        Size::Laptop => Scale::Laptop,
        Size::Paper => Scale::Paper,
    };
    if args.compute != ComputeType::F32 && kind != StudyKind::Cost {
        bail!("--compute: only the study cost computes in another type than f32");
    }
    let cuda = CudaConfig {
        compute: match args.compute {
            ComputeType::F32 => Compute::F32,
            ComputeType::Tf32 => Compute::Tf32,
            ComputeType::Bf16 => Compute::Bf16,
        },
        ..CudaConfig::default()
    };
    Ok(StudyConfig {
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

    fn begin_run(&self, name: &str) {
        self.0.set_message(name.to_owned());
    }

    fn advance(&self, units: u64) {
        self.0.inc(units);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cost_is_measured_in_another_type_than_f32() {
        let config = |study: &str, compute: &str| {
            let command = ["kith-study", study, "--out", "out", "--compute", compute];
            config(&StudyArgs::parse_from(command))
        };
        for compute in ["f32", "tf32", "bf16"] {
            assert!(config("cost", compute).is_ok());
            assert_eq!(config("gradient", compute).is_ok(), compute == "f32");
        }
    }
}

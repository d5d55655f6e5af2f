//! `kith bench`: measures cells in rounds behind a progress bar, then prints tables or JSON.

use std::{env, process::Command, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, builder::PossibleValue};
use indicatif::{ProgressBar, ProgressStyle};

use super::{bench_table, settings_args::SettingsArgs};
use crate::{
    bench::{Bench, Cell, Figure, Kind, Plan, Report, Setup},
    config::Settings,
};
use kith_nn::{NnError, Purpose};

const BAR: &str = "{bar:30} {pos}/{len} measurements, {eta} left";

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Measure these alone
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// Pixels across (default: 96 and 224, training 64 and 96, all else encoder.side)
    #[arg(long, value_delimiter = ',', value_name = "N")]
    side: Vec<usize>,
    /// Images at once, in training and walks pairs (default: 1, 8, 32; pairs 8, 32, 64; layers 32)
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = number)]
    batch: Vec<usize>,
    /// Threads (default: one for each core, and embeddings with one thread as well)
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = number)]
    threads: Vec<usize>,
    /// Seconds for each figure; slow ones take longer: each round has a run to warm up and at least one that counts
    #[arg(long, value_name = "S", default_value_t = 0.75, value_parser = seconds)]
    seconds: f64,
    /// Rounds over all that is measured, so that a busy moment of the machine meets each figure alike
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Forward => "forward",
            Self::Train => "train",
            Self::Layers => "layers",
            Self::Walk => "walk",
            Self::Decode => "decode",
        }))
    }
}

/// Reads a count of images, pairs or threads.
fn number(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=4096).contains(number));
    number.ok_or_else(|| "a number from 1 to 4096 is needed".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number from 0 to 3600 is needed".into())
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let setup = setup(&args.settings.load()?)?;
    let plan = Plan {
        kinds: args.only.clone(),
        sides: args.side.clone(),
        batches: args.batch.clone(),
        threads: args.threads.clone(),
    };
    let cells = plan.cells(&setup)?;
    if cells.is_empty() {
        bail!("single layers are measured on a CPU only: leave encoder.device as it is");
    }
    let report = Report::new(&args.measure(cells, Bench::new(setup))?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        bench_table::print(&report);
    }
    Ok(())
}

fn setup(settings: &Settings) -> Result<Setup, NnError> {
    Ok(Setup {
        encoder: settings.encoder_config(),
        device: settings.device(Purpose::Training)?,
        optimizer: settings.optimizer.clone(),
        learning: settings.learning.clone(),
        limits: settings.limits.clone(),
        augment: settings.augment.clone(),
    })
}

impl BenchArgs {
    fn measure(&self, cells: Vec<Cell>, mut bench: Bench) -> anyhow::Result<Vec<(Cell, Figure)>> {
        let steps = cells.len() as u64 * u64::from(self.rounds);
        let bar = ProgressBar::new(steps).with_style(ProgressStyle::with_template(BAR)?);
        bar.enable_steady_tick(Duration::from_millis(200));
        let seconds = self.seconds / f64::from(self.rounds);
        let mut rounds = vec![Vec::new(); cells.len()];
        for _ in 0..self.rounds {
            for (cell, figures) in cells.iter().zip(&mut rounds) {
                figures.push(match cell {
                    // Memory that other cells left allocated would hide the peak of training.
                    Cell::Train { .. } if steps > 1 => self.in_fresh_process(cell, seconds)?,
                    _ => bench.run(cell, Duration::from_secs_f64(seconds))?,
                });
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        let figures = rounds.iter().filter_map(|one| Figure::of_rounds(one));
        Ok(cells.into_iter().zip(figures).collect())
    }

    /// One round of a training cell, in a new process of this program.
    fn in_fresh_process(&self, cell: &Cell, seconds: f64) -> anyhow::Result<Figure> {
        let Cell::Train {
            side,
            pairs,
            threads,
        } = cell
        else {
            bail!("only training is measured in a process of its own");
        };
        let mut command = Command::new(env::current_exe()?);
        command.args(["bench", "--json", "--only=train", "--rounds=1"]);
        command.args([
            format!("--side={side}"),
            format!("--batch={pairs}"),
            format!("--threads={threads}"),
            format!("--seconds={seconds}"),
        ]);
        command.args(self.settings.to_args());
        let output = command.output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let report: Report = serde_json::from_slice(&output.stdout)?;
        let row = report.train.first();
        row.map(|row| row.figure())
            .context("the fresh process measured nothing")
    }
}

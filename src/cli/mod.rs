//! The command line: one file for each subcommand, each turning its arguments into one call of a lower module.
//! Only this module uses `clap`, `indicatif` and `ureq`, and prints to standard output.
#![allow(clippy::print_stdout)]

mod bench;
mod bench_table;
mod checkpoint;
mod client;
mod config;
mod data_folder;
mod embed;
mod embedding_rows;
mod evaluate;
mod folder;
mod health;
mod image_list;
mod ingest;
mod journal;
mod pair_list;
mod serve;
mod table;
mod upload;
mod verify;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Settings};

/// A server for image embeddings that keeps learning from the pairs its users post.
#[derive(Debug, Parser)]
#[command(name = "kith", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve embeddings over HTTP and learn from posted pairs
    Serve(serve::ServeArgs),
    /// Post pairs of image files to a running server
    Ingest(ingest::IngestArgs),
    /// Get embeddings of image files from a running server
    Embed(embed::EmbedArgs),
    /// Judge a checkpoint on held-out pairs or on your own images
    Evaluate(evaluate::EvaluateArgs),
    /// List, take, promote, delete checkpoints of a running server, or verify those on disk
    Checkpoint(checkpoint::CheckpointArgs),
    /// Check a data folder: every image, every checkpoint, the database; the server may run or not
    Verify(verify::VerifyArgs),
    /// Measure what this machine does: embeddings and training images a second, layers, walks, decoding
    Bench(bench::BenchArgs),
    /// Exit with 0 if a server is alive
    Health(health::HealthArgs),
    /// Print the effective settings as TOML
    Config(config::ConfigArgs),
}

/// Where settings come from; the same for every subcommand that opens a data folder.
#[derive(Args, Debug, Default)]
pub(crate) struct SettingsArgs {
    /// A settings file over the built-in defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the database, the images and the checkpoints
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Any setting, such as training.batch=16; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl SettingsArgs {
    /// The effective settings; named options win over `--set`.
    pub(crate) fn load(&self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::load(self.config.as_deref(), &self.set)?;
        if let Some(dir) = &self.data_dir {
            settings.storage.data_dir.clone_from(dir);
        }
        Ok(settings)
    }

    /// The arguments that give another run of this program the same settings.
    pub(crate) fn repeated(&self) -> Vec<OsString> {
        let paths = [("--config", &self.config), ("--data-dir", &self.data_dir)];
        let paths = paths
            .into_iter()
            .filter_map(|(name, path)| Some([name.into(), path.clone()?.into()]));
        let sets = self.set.iter().map(|set| ["--set".into(), set.into()]);
        paths.chain(sets).flatten().collect()
    }
}

/// Parses the command line and runs it; a failure is one sentence on standard error and exit code 1.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Ingest(args) => ingest::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Config(args) => config::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kith: {error:#}");
            ExitCode::FAILURE
        }
    }
}

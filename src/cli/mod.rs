//! The command line: one file for each subcommand, which turns its arguments into calls of other modules. Only this module prints to
//! standard output.

// First: its macros are those of all modules below.
#[macro_use]
mod out;

mod alias;
mod answer;
mod audit;
mod augment;
mod bench;
mod bench_table;
mod checkpoint;
mod checkpoint_id;
mod client;
mod client_error;
mod config;
mod data_folder;
mod doctor;
mod embed;
mod embedded;
mod embedding_table;
mod evaluate;
mod evaluation;
mod events;
mod export;
mod export_format;
mod export_readme;
mod figure;
mod file;
mod folder;
mod health;
mod image;
mod image_files;
mod image_list;
mod ingest;
mod journal;
mod key;
mod page;
mod pair;
mod pair_list;
mod path_segment;
mod reembed;
mod search;
mod search_query;
mod serve;
mod server_args;
mod settings_args;
mod shell;
mod stored;
mod table;
mod training;
mod upload;
mod verify;

pub use pair_list::{PairFiles, PairList};

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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
    /// Find the stored images of a running server that are nearest to images or vectors
    Search(search::SearchArgs),
    /// Show how far the stored images are embedded under each searched checkpoint, and wait for it
    Reembed(reembed::ReembedArgs),
    /// Judge a checkpoint on held-out pairs or on your own images
    Evaluate(evaluate::EvaluateArgs),
    /// List, take, promote, delete checkpoints of a running server, or verify those on disk
    Checkpoint(checkpoint::CheckpointArgs),
    /// Show, pause and resume training of a running server
    Training(training::TrainingArgs),
    /// List, show and delete pairs that a running server stores
    Pair(pair::PairArgs),
    /// List, store, get and erase images that a running server stores
    Image(image::ImageArgs),
    /// Name checkpoints of a running server, and try candidates under a name
    Alias(alias::AliasArgs),
    /// Follow what happens on a running server, one JSON document a line
    Events(events::EventsArgs),
    /// Make, list and revoke API keys; the server may run or not
    Key(key::KeyArgs),
    /// Check a data folder: every image, every checkpoint, the database; the server may run or not
    Verify(verify::VerifyArgs),
    /// Compare what a checkpoint learned with to what it should be; the server may run or not
    Audit(audit::AuditArgs),
    /// Measure what this machine does: embeddings and training images a second, layers, walks, decoding
    Bench(bench::BenchArgs),
    /// Show what training's alterations make of images
    Augment(augment::AugmentArgs),
    /// Exit with 0 if a server is alive
    Health(health::HealthArgs),
    /// Look at this machine, the settings and the data folder, and say what to change
    Doctor(doctor::DoctorArgs),
    /// Print the effective settings as TOML
    Config(config::ConfigArgs),
    /// Print a script that completes kith's command line in a shell
    Completions(shell::CompletionsArgs),
    /// Write man pages into a folder
    Man(shell::ManArgs),
}

/// Parses the command line and runs it; a failure is one sentence on standard error and exit code 1.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Ingest(args) => ingest::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Reembed(args) => reembed::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Training(args) => training::run(&args),
        Command::Pair(args) => pair::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Alias(args) => alias::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Augment(args) => augment::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kith: {error:#}");
            ExitCode::FAILURE
        }
    }
}

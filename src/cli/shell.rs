//! `kith completions` and `kith man`: what a shell and `man` know of the command line, made from its definition.

use std::{io, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder for the pages, one a subcommand; created if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the script that a shell reads.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kith", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)
        .context("standard output cannot be written")
}

/// Writes `kith.1`, `kith-serve.1` and so on.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let cannot = || format!("{} cannot be written", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(cannot)?;
    clap_mangen::generate_to(command, &args.folder).with_context(cannot)
}

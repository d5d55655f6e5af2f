//! `kith doctor`: whether a server can run here, and what to change.

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::{data_folder::block_on, settings_args::SettingsArgs};
use crate::doctor::{self, Check, State};

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// An error, and so exit code 1, if there is a problem; warnings are none.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let settings = args.settings.load()?;
    let checks = block_on(async { Ok(doctor::examine(&settings).await) })?;
    if args.json {
        println!("{:#}", json!({"checks": checks}));
    } else {
        checks.iter().for_each(print);
    }
    let problems = checks.iter().filter(|check| check.state == State::Problem);
    let problems = problems.count();
    ensure!(
        problems == 0,
        "{problems} of {} checks found a problem",
        checks.len()
    );
    Ok(())
}

fn print(check: &Check) {
    let state = match check.state {
        State::Good => "good",
        State::Warning => "WARNING",
        State::Problem => "PROBLEM",
    };
    println!("{state:8} {:11} {}", check.name, check.found);
    if let Some(remedy) = &check.remedy {
        println!("{:20} {remedy}", "");
    }
}

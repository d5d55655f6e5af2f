//! `kith verify`: checks a data folder, which a server may be using, and names damage with its remedy.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    data_folder::{DataFolder, block_on},
    settings_args::SettingsArgs,
};
use crate::{
    audit::{Audit, Checked, Event, Finding},
    config::Settings,
};

const BAR: &str = "{bar:30} {pos}/{len} checked, {eta} left";

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// An error, and so exit code 1, if anything is damaged.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let settings = args.settings.load()?;
    let (checked, found) = block_on(check(&settings, args.json))?;
    if args.json {
        println!("{:#}", json!({"checked": checked, "damaged": found}));
    } else {
        let Checked {
            images,
            checkpoints,
        } = checked;
        println!("checked the database, {images} images and {checkpoints} checkpoints");
    }
    ensure!(found.is_empty(), "{} things are damaged", found.len());
    Ok(())
}

async fn check(settings: &Settings, quiet: bool) -> anyhow::Result<(Checked, Vec<Finding>)> {
    let folder = DataFolder::open(settings).await?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(BAR)?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut found = Vec::new();
    let mut tell = |event| match event {
        Event::Total(total) => bar.set_length(total),
        Event::Checked => bar.inc(1),
        Event::Found(finding) => {
            if !quiet {
                bar.suspend(|| print(&finding));
            }
            found.push(finding);
        }
    };
    let audit = Audit::new(&folder.blobs, &folder.db, &folder.checkpoints, &mut tell);
    let checked = audit.run().await?;
    bar.finish_and_clear();
    folder.db.close().await;
    Ok((checked, found))
}

fn print(finding: &Finding) {
    let Finding {
        kind,
        id,
        what,
        remedy,
    } = finding;
    println!("DAMAGED  {kind} {id}: {what}. {remedy}");
}

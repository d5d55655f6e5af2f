//! `kith audit sampler`: whether the chains of a checkpoint hold draws from their exact softmaxes. The data folder is opened read-only.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    data_folder::{DataFolder, block_on, settings},
    figure::Figure,
    settings_args::SettingsArgs,
};
use crate::{
    audit::{
        AuditScope, FROZEN_VISITS, SamplerAudit, SamplerAuditConfig, SamplerAuditEvent,
        SamplerAuditMachine, SamplerReport, Spread, Verdict,
    },
    config::Settings,
    telemetry,
};
use kith_nn::Purpose;

const BAR: &str = "{bar:30} {pos}/{len} images embedded, {eta} left";

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Compare what the Markov chains hold with the softmaxes that they should sample
    Sampler(Box<SamplerArgs>),
}

/// Each chain holds one image, which should be a draw from the softmax of its anchor over all other images. This computes that softmax exactly for many
/// anchors, under the checkpoint's own weights and on the plain views of the images, and tests whether the images that the chains hold are such draws. The
/// exit code is 1 if they are not.
#[derive(Args, Debug)]
struct SamplerArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// latest, live, or an id; learning.beta must be that of its training
    #[arg(long, value_name = "NAME", default_value = "latest")]
    checkpoint: String,
    /// Most images that are compared, and embedded for it. Of more images a sample is taken, with those chains that hold one of it
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    images: u32,
    /// Most anchors whose chains are compared
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    anchors: u32,
    /// Leave out chains with fewer visits: a young one has met few images
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_visits: u32,
    /// Largest distance of the ranks from uniform, 0 to 1, that counts as small
    #[arg(long, value_name = "DISTANCE", default_value_t = 0.1, value_parser = distance)]
    tolerance: f64,
    /// Chooses the images and the anchors, where there are more
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// cpu or cuda:N (default: encoder.device)
    #[arg(long)]
    device: Option<String>,
    /// Threads to compute with; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Parses a distance of distributions.
fn distance(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "it must be a number from 0 to 1 such as 0.1".to_owned())
}

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let Action::Sampler(args) = &args.action;
    telemetry::start("warn", false).map_err(anyhow::Error::msg)?;
    let settings = settings(&args.settings, args.device.as_ref())?;
    let report = block_on(audit(args, &settings))?;
    if args.json {
        println!("{:#}", serde_json::to_value(report)?);
    } else {
        print(&report);
    }
    ensure!(report.verdict != Verdict::Differs, "{}", report.verdict);
    Ok(())
}

async fn audit(args: &SamplerArgs, settings: &Settings) -> anyhow::Result<SamplerReport> {
    let folder = DataFolder::open(settings).await?;
    let id = folder.find(&args.checkpoint).await?;
    let pool = rayon::ThreadPoolBuilder::new();
    let machine = SamplerAuditMachine {
        device: settings.device(Purpose::Serving)?,
        pool: Arc::new(pool.num_threads(args.threads).build()?),
        limits: settings.limits.clone(),
    };
    let audit = SamplerAudit {
        blobs: &folder.blobs,
        db: &folder.db,
        checkpoints: &folder.checkpoints,
        config: SamplerAuditConfig {
            images: args.images as usize,
            chains: args.anchors as usize,
            min_visits: args.min_visits,
            beta: settings.learning.beta,
            tolerance: args.tolerance,
            seed: args.seed,
        },
    };
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(BAR)?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut tell = |event| match event {
        SamplerAuditEvent::Total(total) => bar.set_length(total as u64),
        SamplerAuditEvent::Embedded(count) => bar.inc(count as u64),
    };
    let report = audit.run(id, machine, &mut tell).await;
    bar.finish_and_clear();
    folder.db.close().await;
    Ok(report?)
}

fn print(report: &SamplerReport) {
    let SamplerReport {
        scope,
        ranks,
        score,
        stored_minus_fresh: gap,
        ..
    } = report;
    println!(
        "checkpoint {} at step {}, beta {}",
        scope.checkpoint, scope.step, scope.beta
    );
    println!(
        "{} of {} chains, each against its softmax over {} of {} images, which is spread over {:.1} of them\n",
        report.anchors, scope.chains, scope.images, scope.all_images, report.effective_images
    );
    let figures = [
        Figure::number(
            "rank distance",
            ranks.distance,
            4,
            format!("0: as drawn from the softmaxes; p = {:.3}", ranks.p_value),
        ),
        Figure::number(
            "mean score",
            score.chains,
            4,
            format!(
                "exact {:.4} ± {:.4}; z = {:.2}; {:.2} of the way from no preference",
                score.exact, score.standard_error, score.z, score.lean
            ),
        ),
        Figure::number(
            "stored − fresh score",
            gap.mean,
            4,
            format!("mean magnitude {:.4}", gap.mean_absolute),
        ),
        Figure {
            name: "frozen",
            value: format!("{:.1}%", 100.0 * report.frozen_share),
            meaning: format!("no move in {FROZEN_VISITS} visits or more"),
        },
        spread("visits", &report.visits),
        spread("steps since scored", &report.age),
    ];
    for figure in figures {
        println!("{figure}");
    }
    print_left_out(scope);
    if report.verdict != Verdict::Differs {
        println!("\n{}", report.verdict);
    }
}

fn print_left_out(scope: &AuditScope) {
    for (count, what) in [
        (
            scope.dropped_chains,
            "chains hold no candidate any more and start anew",
        ),
        (
            scope.missing_images,
            "images are gone, damaged or cannot be decoded",
        ),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
}

fn spread(name: &'static str, spread: &Spread) -> Figure {
    let Spread {
        mean,
        median,
        p90,
        max,
    } = spread;
    let meaning = format!("median {median}, nine in ten at most {p90}, largest {max}");
    Figure::number(name, *mean, 1, meaning)
}

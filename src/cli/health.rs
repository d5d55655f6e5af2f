//! `kith health`: whether a server is alive, as an exit code, for health checks without an HTTP client. It takes two seconds at most.

use clap::Args;

use super::{client::Client, server_args::ServerArgs};

#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Ask whether it can serve, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

pub(crate) fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = Client::probe(&args.server).get(path)?;
    println!("{}", answer["status"].as_str().unwrap_or("ok"));
    Ok(())
}

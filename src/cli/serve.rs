//! `kith serve`: settings, logs, listener and signals in; [`crate::http::serve`] does the rest.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use futures::future::select_all;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::SettingsArgs;
use crate::{
    app::{self, App},
    config::{LogFormat, Settings},
    http, telemetry,
};

/// Exit code of a stop that was cut short by a second signal.
const CUT_SHORT: i32 = 130;

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address and port; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Allow an address that is not loopback: whoever reaches the port may then write
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let settings = settings(args)?;
    telemetry::start(&settings.log.filter, settings.log.format == LogFormat::Json)
        .map_err(anyhow::Error::msg)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot start")?
        .block_on(serve(settings))
}

fn settings(args: ServeArgs) -> anyhow::Result<Settings> {
    let mut settings = args.settings.load()?;
    if let Some(listen) = args.listen {
        settings.server.listen = listen;
    }
    settings.server.insecure |= args.insecure;
    Ok(settings)
}

/// Listens first, so that a taken port is an error before anything is written, and starts the parts before accepting.
async fn serve(settings: Settings) -> anyhow::Result<()> {
    app::check_exposure(&settings.server)?;
    let listen = settings.server.listen.clone();
    let listener = TcpListener::bind(&listen)
        .await
        .with_context(|| format!("cannot listen on {listen}: choose another with --listen"))?;
    let address = listener.local_addr()?;
    let stop = stop_signal()?;
    let app = App::start(settings).await?;
    greet(address);
    http::serve(listener, app, stop).await?;
    Ok(())
}

fn greet(address: SocketAddr) {
    println!("kith listens on http://{address}");
    println!(
        "  embed    curl -s http://{address}/v1/embeddings -H 'content-type: image/png' --data-binary @a.png"
    );
    println!("  teach    curl -s http://{address}/v1/pairs -F anchor=@a.png -F positive=@b.png");
    println!("  watch    curl -s http://{address}/v1/training");
}

/// Ready at the first SIGTERM, SIGHUP or Ctrl-C; at the second the process ends at once. The handlers are installed before this returns, so
/// no signal is missed.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        // The terminal is gone. Without a handler the system would end the process, and what was learned since the last snapshot with it.
        signal(SignalKind::hangup())?,
    ];
    Ok(async move {
        next_of(&mut signals).await;
        tokio::spawn(async move {
            next_of(&mut signals).await;
            tracing::warn!("told to stop again: ending at once, the last complete snapshot stands");
            std::process::exit(CUT_SHORT);
        });
    })
}

/// Waits for any of the signals.
async fn next_of(signals: &mut [Signal]) {
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    select_all(waits).await;
}

//! `kith serve`: reads settings, starts logs, opens the listener and runs [`crate::http::serve`] until a signal.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use futures::future::select_all;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::settings_args::SettingsArgs;
use crate::{
    app::{self, App},
    config::{LogFormat, Settings},
    http, telemetry,
};

/// Exit code after a second signal.
const ABORTED: i32 = 130;

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address and port; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Allow an address that is not loopback although there is no key: whoever reaches the port may then write
    #[arg(long)]
    insecure: bool,
    /// Weights of the first checkpoint: a .safetensors or .pth of ResNet-18. Where there are checkpoints it has no effect
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let json = settings.log.format == LogFormat::Json;
    let traces = (!settings.traces.endpoint.is_empty()).then_some(&settings.traces);
    let traces = telemetry::start_with_traces(&settings.log.filter, json, traces)
        .map_err(anyhow::Error::msg)?;
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot start")?
        .block_on(serve(settings));
    if let Some(traces) = traces {
        traces.stop();
    }
    served
}

fn settings(args: ServeArgs) -> anyhow::Result<Settings> {
    let mut settings = args.settings.load()?;
    if let Some(listen) = args.listen {
        settings.server.listen = listen;
    }
    settings.server.insecure |= args.insecure;
    if let Some(weights) = args.weights {
        let weights = weights.into_os_string().into_string();
        settings.encoder.start = weights.map_err(|_| anyhow::anyhow!("--weights must be UTF-8"))?;
    }
    Ok(settings)
}

/// Opens the listener first, so that a port in use is an error before anything is written; starts the app before accepting connections.
async fn serve(settings: Settings) -> anyhow::Result<()> {
    app::check_exposure(&settings).await?;
    let listen = settings.server.listen.clone();
    let listener = TcpListener::bind(&listen)
        .await
        .with_context(|| format!("cannot listen on {listen}: choose another with --listen"))?;
    let address = listener.local_addr()?;
    let stop = stop_signal()?;
    let app = App::start(settings).await?;
    print_address(address, app.keys.required());
    http::serve(listener, app, stop).await?;
    Ok(())
}

fn print_address(address: SocketAddr, keyed: bool) {
    let key = if keyed {
        " -H \"authorization: Bearer $KITH_KEY\""
    } else {
        ""
    };
    // A server goes on where nobody reads this.
    let _ = write!(
        io::stdout(),
        "kith listens on http://{address}
  embed    curl -s http://{address}/v1/embeddings{key} -H 'content-type: image/png' --data-binary @a.png
  teach    curl -s http://{address}/v1/pairs{key} -F anchor=@a.png -F positive=@b.png
  watch    curl -s http://{address}/v1/training{key}
"
    );
}

/// Waits for SIGTERM, SIGHUP or Ctrl-C; a second signal ends the process at once. The handlers are installed before this returns, so that no
/// signal is missed.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        // Sent when the terminal closes. Without a handler the process would end without a last snapshot.
        signal(SignalKind::hangup())?,
    ];
    Ok(async move {
        next_of(&mut signals).await;
        tokio::spawn(async move {
            next_of(&mut signals).await;
            tracing::warn!(
                "second signal: ending at once, training resumes from the last complete snapshot"
            );
            std::process::exit(ABORTED);
        });
    })
}

/// Waits for any of the signals.
async fn next_of(signals: &mut [Signal]) {
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    select_all(waits).await;
}

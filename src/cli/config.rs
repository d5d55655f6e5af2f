//! `kith config`: the effective settings as TOML, ready to be kept as a settings file.
//! Must never know: what a setting does.

use clap::Args;

use super::SettingsArgs;

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    print!("{}", args.settings.load()?.to_toml());
    Ok(())
}

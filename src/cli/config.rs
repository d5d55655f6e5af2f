//! `kith config`: prints the effective settings as TOML, which can be used as a settings file.

use clap::Args;

use super::settings_args::SettingsArgs;

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    print!("{}", args.settings.load()?.to_toml());
    Ok(())
}

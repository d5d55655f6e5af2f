//! `kith key`: makes, lists and revokes the API keys of a data folder, which a server may be using.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{data_folder::block_on, settings_args::SettingsArgs};
use crate::{
    app,
    keys::{self, KeyRow, NewKey, Scope},
};

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and show it, once. From then on the server answers holders of a key only
    Create {
        /// What people call it: letters, digits, '-', '_', '.' or '@'
        #[arg(long)]
        name: String,
        /// embed: vectors; write: images and pairs too; admin: training, checkpoints and aliases too
        #[arg(long, value_parser = scope)]
        scope: Scope,
        /// When it expires: a span such as 90d or 12h, a date, or a time such as 2027-01-31T12:00:00Z [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List all keys, revoked ones too, without their text
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Revoke a key: a running server refuses it within a second
    Revoke {
        /// The key's id or name
        #[arg(value_name = "ID|NAME")]
        key: String,
        #[command(flatten)]
        output: Output,
    },
}

/// What all actions take.
#[derive(Args, Debug)]
struct Output {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Create {
            name,
            scope,
            expires,
            output,
        } => {
            let expires_at = expires.as_deref().map(time).transpose()?;
            let new = NewKey {
                name: name.clone(),
                scope: *scope,
                expires_at,
            };
            block_on(create(output, new))
        }
        Action::List { output } => block_on(list(output)),
        Action::Revoke { key, output } => block_on(revoke(output, key)),
    }
}

async fn create(output: &Output, new: NewKey) -> anyhow::Result<()> {
    let data_dir = output.settings.load()?.storage.data_dir;
    let folder = app::open_for_changes(&data_dir, true).await?;
    let made = keys::create(&folder.db, new).await;
    folder.close().await?;
    let (row, secret) = made?;
    if output.json {
        let mut document = document(&row);
        document["key"] = secret.reveal().into();
        println!("{document:#}");
        return Ok(());
    }
    print_table(std::slice::from_ref(&row));
    eprintln!(
        "\nThe key is shown this once; only its hash is stored. Send it as \"Authorization: Bearer KEY\", or set KITH_KEY for kith's own commands."
    );
    println!("{}", secret.reveal());
    Ok(())
}

async fn list(output: &Output) -> anyhow::Result<()> {
    let data_dir = output.settings.load()?.storage.data_dir;
    let db = app::open_database_read_only(&data_dir).await?;
    let rows = db.keys().await;
    db.close().await;
    let rows = rows?;
    if output.json {
        let data: Vec<Value> = rows.iter().map(document).collect();
        println!("{:#}", json!({"data": data}));
    } else {
        print_table(&rows);
    }
    Ok(())
}

async fn revoke(output: &Output, key: &str) -> anyhow::Result<()> {
    let data_dir = output.settings.load()?.storage.data_dir;
    let folder = app::open_for_changes(&data_dir, false).await?;
    let revoked = keys::revoke(&folder.db, key).await;
    folder.close().await?;
    let row = revoked?;
    if output.json {
        println!("{:#}", document(&row));
    } else {
        println!("revoked {} ({})", row.name, row.id);
    }
    Ok(())
}

fn document(row: &KeyRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "scope": row.scope,
        "status": status(row),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    })
}

fn status(row: &KeyRow) -> &'static str {
    match (row.revoked_at, row.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= Timestamp::now() => "expired",
        _ => "active",
    }
}

fn print_table(rows: &[KeyRow]) {
    println!(
        "{:36}  {:5}  {:7}  {:20}  {:20}  name",
        "id", "scope", "status", "created", "expires"
    );
    let shown = |at: Timestamp| at.to_string().chars().take(19).collect::<String>();
    for row in rows {
        println!(
            "{}  {:5}  {:7}  {:20}  {:20}  {}",
            row.id,
            format!("{:?}", row.scope).to_lowercase(),
            status(row),
            shown(row.created_at),
            row.expires_at.map_or_else(|| "never".to_owned(), shown),
            row.name
        );
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "embed" => Ok(Scope::Embed),
        "write" => Ok(Scope::Write),
        "admin" => Ok(Scope::Admin),
        _ => Err("a scope is embed, write or admin".to_owned()),
    }
}

/// A time, the beginning of a date, or a span from now on; dates and days are those of UTC.
fn time(text: &str) -> anyhow::Result<Timestamp> {
    let midnight = || format!("{text}T00:00:00Z").parse();
    if let Ok(at) = text.parse().or_else(|_| midnight()) {
        return Ok(at);
    }
    let Ok(span) = text.parse::<Span>() else {
        bail!(
            "--expires {text} is no time: write a span such as 90d, a date, or a time such as 2027-01-31T12:00:00Z"
        );
    };
    let now = Timestamp::now().to_zoned_datetime(TimeZone::UTC);
    let at = now.checked_add(span);
    Ok(at
        .with_context(|| format!("--expires {text} is too far away"))?
        .timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_span_a_date_or_a_time() {
        let hours = |text: &str| {
            let from_now = time(text).unwrap().duration_since(Timestamp::now());
            (from_now.as_secs() + 60) / 3600
        };
        assert_eq!((hours("90d"), hours("12h")), (90 * 24, 12));
        let date = time("2100-01-31").unwrap();
        assert_eq!(date.to_string(), "2100-01-31T00:00:00Z");
        let other = time("2100-01-31T02:00:00+02:00").unwrap();
        assert_eq!(other, date);
        for wrong in ["soon", "", "90", "2100-13-01", "2100-01-31T02:00:00"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}

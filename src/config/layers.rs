//! Merges the layers of settings: built-in defaults, the preset of `[augment]`, a file, `KITH_…` variables, `--set` flags. Every key must be a
//! key of the defaults and have a value of the same kind; an error names the layer and the key.

use std::{ffi::OsString, path::Path};

use config::{Config, File, FileFormat};
use toml::{Table, Value};

use super::{
    error::ConfigError,
    kinds, presets,
    settings::Settings,
    tables::{find, insert, leaves},
};

/// The defaults, which hold every key.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Merges the layers, later ones winning.
pub(super) fn merge(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    sets: &[String],
) -> Result<Settings, ConfigError> {
    let defaults: Table = toml::from_str(DEFAULTS).expect("a test reads the built-in defaults");
    let file = file.map(|path| read(path, &defaults)).transpose()?;
    let flags = sets
        .iter()
        .map(|flag| from_flag(flag))
        .collect::<Result<Vec<_>, _>>()?;
    let mut overrides = Table::new();
    for setting in from_environment(environment)?.into_iter().chain(flags) {
        let value = setting.value(&defaults)?;
        insert(&mut overrides, &setting.key, value);
    }
    let (file, overrides) = (file.unwrap_or_default(), overrides.to_string());
    let preset = presets::layer(&layered(&[DEFAULTS, &file, &overrides])?);
    let merged = layered(&[DEFAULTS, &preset, &file, &overrides])?;
    kinds::typed(merged, &defaults)
}

/// The values of TOML texts, later ones winning.
fn layered(texts: &[&str]) -> Result<Table, ConfigError> {
    let layers = texts.iter().fold(Config::builder(), |layers, text| {
        layers.add_source(File::from_str(text, FileFormat::Toml))
    });
    layers
        .build()
        .and_then(Config::try_deserialize)
        .map_err(merge_error)
}

/// One setting from a variable or a flag.
struct Override {
    /// The variable or the flag, for messages.
    origin: String,
    /// `section.key`.
    key: String,
    /// The value as text.
    text: String,
}

impl Override {
    /// The value as TOML. Bare text is a string, so that `log.format=json` needs no quotes; so is anything whose default is a string.
    fn value(&self, defaults: &Table) -> Result<Value, ConfigError> {
        let default = find(defaults, &self.key)
            .filter(|found| !found.is_table())
            .ok_or_else(|| unknown(&self.origin, &self.key, defaults))?;
        let parsed = toml::from_str::<Table>(&format!("v = {}", self.text))
            .ok()
            .and_then(|mut table| table.remove("v"));
        let value = match parsed {
            Some(value) if default.is_array() && value.is_array() => value,
            Some(value) if !default.is_array() && !default.is_str() => value,
            Some(value) if default.is_str() && value.is_str() => value,
            _ if default.is_array() => {
                let names = self
                    .text
                    .split(',')
                    .map(|name| name.trim().trim_matches('"'));
                let names = names.filter(|name| !name.is_empty());
                Value::Array(names.map(|name| Value::String(name.to_owned())).collect())
            }
            _ => Value::String(self.text.clone()),
        };
        kinds::check(&self.origin, &self.key, &value, default)?;
        Ok(value)
    }
}

/// Reads `KITH_SECTION__KEY` variables. Those without a double underscore are not settings.
fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(path) = name
            .strip_prefix("KITH_")
            .filter(|path| path.contains("__"))
        else {
            continue;
        };
        let text = value
            .into_string()
            .map_err(|_| ConfigError(format!("{name} is not UTF-8: set it to plain text")))?;
        overrides.push(Override {
            origin: name.to_owned(),
            key: path.to_lowercase().replace("__", "."),
            text,
        });
    }
    overrides.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(overrides)
}

fn from_flag(flag: &str) -> Result<Override, ConfigError> {
    let (key, text) = flag.split_once('=').ok_or_else(|| {
        ConfigError(format!(
            "--set {flag} has no \"=\": write section.key=value"
        ))
    })?;
    Ok(Override {
        origin: format!("--set {flag}"),
        key: key.trim().to_owned(),
        text: text.trim().to_owned(),
    })
}

/// Reads a settings file and checks its keys and values.
fn read(path: &Path, defaults: &Table) -> Result<String, ConfigError> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!("the settings file {name} cannot be read: {error}"))
    })?;
    let table: Table =
        toml::from_str(&text).map_err(|error| not_toml(&name.to_string(), &text, &error))?;
    let origin = format!("the settings file {name}");
    for key in &leaves(&table) {
        let default = find(defaults, key).ok_or_else(|| unknown(&origin, key, defaults))?;
        let value = find(&table, key).unwrap_or(default);
        kinds::check(&origin, key, value, default)?;
    }
    Ok(text)
}

/// The error for a file that is not TOML, with the line.
fn not_toml(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| 1 + before.matches('\n').count());
    ConfigError(format!(
        "the settings file {name} is not TOML at line {line}: write [section], and below it key = value"
    ))
}

/// The error for an unknown key, with the known keys of its section.
fn unknown(origin: &str, key: &str, defaults: &Table) -> ConfigError {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let table = find(defaults, section).and_then(Value::as_table);
    let names: Vec<&str> = table
        .unwrap_or(defaults)
        .keys()
        .map(String::as_str)
        .collect();
    let known = match table {
        Some(_) => format!("the keys of [{section}] are"),
        None => "the sections are".to_owned(),
    };
    ConfigError(format!(
        "{origin}: there is no setting {key}; {known} {}",
        names.join(", ")
    ))
}

fn merge_error(error: config::ConfigError) -> ConfigError {
    let text = error.to_string();
    ConfigError(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

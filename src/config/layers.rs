//! The layers of settings and their order: built-in defaults, a file, `KITH_…` variables, `--set` flags.
//! Every key of a layer must be a key of the defaults, and its value of the same kind; else the layer is refused by name.

use std::{ffi::OsString, path::Path};

use config::{Config, File, FileFormat};
use toml::{Table, Value};

use super::{ConfigError, Settings, kinds};

/// The defaults that ship in the binary; the list of all keys there are.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Merges the layers, later ones winning.
pub(super) fn merge(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    sets: &[String],
) -> Result<Settings, ConfigError> {
    let defaults: Table = toml::from_str(DEFAULTS).expect("a test reads the built-in defaults");
    let mut layers = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = file {
        let text = read(path, &defaults)?;
        layers = layers.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let flags = sets
        .iter()
        .map(|flag| from_flag(flag))
        .collect::<Result<Vec<_>, _>>()?;
    let mut singles = Table::new();
    for single in from_environment(environment)?.into_iter().chain(flags) {
        let value = single.value(&defaults)?;
        insert(&mut singles, &single.key, value);
    }
    layers = layers.add_source(File::from_str(&singles.to_string(), FileFormat::Toml));
    let merged: Table = layers
        .build()
        .and_then(Config::try_deserialize)
        .map_err(refuse)?;
    kinds::typed(merged, &defaults)
}

/// One key set outside a file.
struct Single {
    /// How its author named it, for messages.
    origin: String,
    /// `section.key`.
    key: String,
    /// The value as text.
    text: String,
}

impl Single {
    /// The value as TOML. Bare text is a string, so that `log.format=json` needs no quotes; where the default is a string, anything is.
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

/// `KITH_SECTION__KEY` variables; others of the prefix, without a double underscore, are not settings.
fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Single>, ConfigError> {
    let mut singles = Vec::new();
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
        singles.push(Single {
            origin: name.to_owned(),
            key: path.to_lowercase().replace("__", "."),
            text,
        });
    }
    singles.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(singles)
}

fn from_flag(flag: &str) -> Result<Single, ConfigError> {
    let (key, text) = flag.split_once('=').ok_or_else(|| {
        ConfigError(format!(
            "--set {flag} has no \"=\": write section.key=value"
        ))
    })?;
    Ok(Single {
        origin: format!("--set {flag}"),
        key: key.trim().to_owned(),
        text: text.trim().to_owned(),
    })
}

/// A settings file whose keys are all known.
fn read(path: &Path, defaults: &Table) -> Result<String, ConfigError> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!("the settings file {name} cannot be read: {error}"))
    })?;
    let table: Table =
        toml::from_str(&text).map_err(|error| not_toml(&name.to_string(), &text, &error))?;
    let origin = format!("the settings file {name}");
    let mut keys = Vec::new();
    leaves("", &table, &mut keys);
    for key in &keys {
        let default = find(defaults, key).ok_or_else(|| unknown(&origin, key, defaults))?;
        let value = find(&table, key).unwrap_or(default);
        kinds::check(&origin, key, value, default)?;
    }
    Ok(text)
}

/// Says in which line a file stops being TOML.
fn not_toml(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| 1 + before.matches('\n').count());
    ConfigError(format!(
        "the settings file {name} is not TOML at line {line}: write [section], and below it key = value"
    ))
}

/// Paths of all values of a table.
fn leaves(prefix: &str, table: &Table, into: &mut Vec<String>) {
    for (key, value) in table {
        let path = match prefix {
            "" => key.clone(),
            _ => format!("{prefix}.{key}"),
        };
        match value {
            Value::Table(inner) => leaves(&path, inner, into),
            _ => into.push(path),
        }
    }
}

pub(super) fn find<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let value = table.get(first)?;
    match rest {
        Some(rest) => find(value.as_table()?, rest),
        None => Some(value),
    }
}

/// Sets one value, making the tables on the way; `path` is a leaf of the defaults, so no value stands in a table's place.
fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The refusal of an unknown key, with the known ones of its section.
fn unknown(origin: &str, key: &str, defaults: &Table) -> ConfigError {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let table = find(defaults, section).and_then(Value::as_table);
    let names: Vec<&str> = table
        .unwrap_or(defaults)
        .keys()
        .map(String::as_str)
        .collect();
    let place = match table {
        Some(_) => format!("[{section}] has"),
        None => "the sections are".to_owned(),
    };
    ConfigError(format!(
        "{origin}: there is no setting {key}; {place} {}",
        names.join(", ")
    ))
}

fn refuse(error: config::ConfigError) -> ConfigError {
    let text = error.to_string();
    ConfigError(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

//! Refuses a value of the wrong kind in plain words: the key, the value, and what is wanted. The kind of a setting is its default's.

use toml::{Table, Value};

use super::{ConfigError, Settings, layers::find};

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// Checks one value of a layer. `origin`: how its author named it.
pub(super) fn check(
    origin: &str,
    key: &str,
    value: &Value,
    default: &Value,
) -> Result<(), ConfigError> {
    let fits = match (default, value) {
        (Value::Integer(_), Value::Integer(number)) => *number >= 0,
        (Value::Float(_), Value::Float(_) | Value::Integer(_)) => true,
        (Value::Array(wanted), Value::Array(found)) if is_numbers(wanted) => {
            wanted.len() == found.len() && is_numbers(found)
        }
        (Value::Array(_), Value::Array(found)) => found.iter().all(Value::is_str),
        _ => default.same_type(value),
    };
    if fits {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{origin}: {key} must be {}, not {}",
        wanted(default),
        shown(value)
    )))
}

/// The merged layers as settings. What the kinds let through is a word that is no choice, or a number beyond its type.
pub(super) fn typed(merged: Table, defaults: &Table) -> Result<Settings, ConfigError> {
    let document = Value::Table(merged.clone());
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let key = key.split('[').next().unwrap_or_default();
        let value = find(&merged, key).map_or("nothing".to_owned(), shown);
        let choices = choices(error.inner().message());
        let default = find(defaults, key);
        let wanted = choices.unwrap_or_else(|| match default {
            Some(Value::Integer(_)) => "a smaller whole number".to_owned(),
            Some(default) => wanted(default),
            None => "one of the keys that `kith config` prints".to_owned(),
        });
        ConfigError(format!("{key} must be {wanted}, not {value}"))
    })
}

/// The names in back quotes that follow the word that was found.
fn choices(message: &str) -> Option<String> {
    let list = message.strip_prefix("unknown variant `")?;
    let names: Vec<&str> = list.split('`').skip(2).step_by(2).collect();
    let (last, others) = names.split_last()?;
    match others {
        [] => Some((*last).to_owned()),
        _ => Some(format!("{} or {last}", others.join(", "))),
    }
}

/// A list of settings is one of numbers, as many as the default has, or one of any number of texts.
fn is_numbers(values: &[Value]) -> bool {
    let number = |value: &Value| value.is_float() || value.is_integer();
    !values.is_empty() && values.iter().all(number)
}

fn wanted(default: &Value) -> String {
    match default {
        Value::Integer(_) => "a whole number, 0 or more".to_owned(),
        Value::Float(_) => "a number".to_owned(),
        Value::Boolean(_) => "true or false".to_owned(),
        Value::Array(values) if is_numbers(values) => {
            format!("a list of {} numbers in brackets", values.len())
        }
        Value::Array(_) => "a list of texts".to_owned(),
        Value::Table(_) => "a section with keys of its own".to_owned(),
        Value::String(_) | Value::Datetime(_) => "text in quotes".to_owned(),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => return "a section".to_owned(),
        _ => value.to_string(),
    };
    let cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}

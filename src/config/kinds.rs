//! Checks the kind of each value, which must be that of its default. An error names the key, the value and the expected kind.

use std::num::IntErrorKind;

use toml::{Table, Value};

use super::{error::ConfigError, settings::Settings, tables::find};

/// Most characters of a value in a message.
const MAX_SHOWN: usize = 60;

/// Checks one value of a layer. `origin`: the layer, for messages.
pub(super) fn check(
    origin: &str,
    key: &str,
    value: &Value,
    default: &Value,
) -> Result<(), ConfigError> {
    let fits = match (default, value) {
        (Value::Integer(_), Value::Integer(number)) => *number >= 0,
        (Value::Float(_), Value::Float(_) | Value::Integer(_)) => true,
        (Value::Array(expected), Value::Array(found)) if is_numbers(expected) => {
            expected.len() == found.len() && is_numbers(found)
        }
        (Value::Array(_), Value::Array(found)) => found.iter().all(Value::is_str),
        _ => default.same_type(value),
    };
    if fits {
        return Ok(());
    }
    let expected = if is_too_large(default, value) {
        format!("a whole number, at most {}", i64::MAX)
    } else {
        expected(default)
    };
    Err(ConfigError(format!(
        "{origin}: {key} must be {expected}, not {}",
        shown(value)
    )))
}

/// Whether a whole number was given that no TOML holds: a variable or a flag leaves it a text.
fn is_too_large(default: &Value, value: &Value) -> bool {
    let too_large = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(text.parse::<i64>(), Err(error) if *error.kind() == IntErrorKind::PosOverflow)
    };
    default.is_integer() && value.as_str().is_some_and(too_large)
}

/// Deserialises the merged layers. After the check of kinds this fails only for an unknown choice, or a number too large for its type.
pub(super) fn typed(merged: Table, defaults: &Table) -> Result<Settings, ConfigError> {
    let document = Value::Table(merged.clone());
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let key = key.split('[').next().unwrap_or_default();
        let value = find(&merged, key).map_or("nothing".to_owned(), shown);
        let choices = choices(error.inner().message());
        let default = find(defaults, key);
        let expected = choices.unwrap_or_else(|| match default {
            Some(Value::Integer(_)) => "a smaller whole number".to_owned(),
            // The defaults of such a list are whole numbers.
            Some(Value::Array(values)) if is_numbers(values) => {
                let found = find(&merged, key).and_then(Value::as_array);
                let are_whole = found.is_some_and(|found| found.iter().all(Value::is_integer));
                let smaller = if are_whole { "smaller " } else { "" };
                format!("a list of {} {smaller}whole numbers", values.len())
            }
            Some(default) => expected(default),
            None => "one of the keys that `kith config` prints".to_owned(),
        });
        ConfigError(format!("{key} must be {expected}, not {value}"))
    })
}

/// The names in serde's message about an unknown variant, which follow the name that was found.
fn choices(message: &str) -> Option<String> {
    let list = message.strip_prefix("unknown variant `")?;
    let names: Vec<&str> = list.split('`').skip(2).step_by(2).collect();
    let (last, others) = names.split_last()?;
    match others {
        [] => Some((*last).to_owned()),
        _ => Some(format!("{} or {last}", others.join(", "))),
    }
}

/// Whether a list holds numbers. Such a list has the default's length; a list of texts has any.
fn is_numbers(values: &[Value]) -> bool {
    let number = |value: &Value| value.is_float() || value.is_integer();
    !values.is_empty() && values.iter().all(number)
}

fn expected(default: &Value) -> String {
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
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}

//! Changes of a JSON value.

use serde_json::{Value, json};

/// The object in `value` under `key`, made if it is not there.
pub(super) fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let entry = &mut value[key];
    if entry.is_null() {
        *entry = Value::Object(serde_json::Map::new());
    }
    entry
}

/// The bytes of files are no JSON arrays.
pub(super) fn binary_bodies(holder: &mut Value) {
    let Some(content) = holder.get_mut("content").and_then(Value::as_object_mut) else {
        return;
    };
    for (media, body) in content.iter_mut() {
        if media.starts_with("image/") || media == "application/octet-stream" {
            body["schema"] = json!({"type": "string", "format": "binary"});
        }
    }
}

/// The schema of the same values but for `null`.
pub(super) fn without_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [one] = &types[..] {
            schema["type"] = one.clone();
        }
    }
    if let Some(names) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        names.retain(|name| !name.is_null());
    }
    if let Some(others) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        others.retain(|other| other.get("type").is_none_or(|kind| kind != "null"));
        if let [one] = &others[..] {
            *schema = one.clone();
        }
    }
}

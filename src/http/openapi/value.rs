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

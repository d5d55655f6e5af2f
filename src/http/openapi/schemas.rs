//! What the derived schemas leave out: rules about several fields, and examples.

use serde_json::{Value, json};

use super::value::without_null;

/// A PNG of 2 × 2 pixels, as the examples send it.
const IMAGE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAE0lEQVR42mM4wSAHRAwnNOSACAAc9gPpIW17aAAAAABJRU5ErkJggg==";

/// Completes the schemas of the document.
pub(super) fn complete(document: &mut Value) {
    any_of(document);
    unsigned(document);
    let schemas = &mut document["components"]["schemas"];
    exactly_one(&mut schemas["ImageObject"], &["image", "image_url"]);
    exactly_one(&mut schemas["SideRequest"], &["image", "id"]);
    exactly_one(&mut schemas["SearchRequest"], &["image", "id", "vector"]);
    for update in ["TrainingUpdate", "CheckpointUpdate"] {
        at_least_one(&mut schemas[update]);
    }
    // The images of Cohere's shape are in one of two fields, or in both.
    let given = |name: &str| json!({"required": [name], "properties": {name: {"type": "array", "minItems": 1}}});
    schemas["EmbedRequest"]["anyOf"] = json!([given("images"), given("inputs")]);
    for (name, example) in examples() {
        schemas[name]["examples"] = json!([example]);
    }
}

/// Of derived alternatives several may fit, such as an empty list of either type.
fn any_of(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(alternatives) = fields.remove("oneOf") {
                fields.insert("anyOf".to_owned(), alternatives);
            }
            fields.values_mut().for_each(any_of);
        }
        Value::Array(items) => items.iter_mut().for_each(any_of),
        _ => {}
    }
}

/// Unsigned integers are derived as signed ones that are not negative.
fn unsigned(value: &mut Value) {
    let field = |name| value.get(name);
    let largest = match field("format").and_then(Value::as_str) {
        Some("int32") => Some(("uint32", u64::from(u32::MAX))),
        Some("int64") => Some(("uint64", u64::MAX)),
        _ => None,
    };
    let minimum = field("minimum").and_then(Value::as_f64);
    if let Some((format, largest)) = largest.filter(|_| minimum >= Some(0.0)) {
        value["format"] = json!(format);
        if value.get("maximum").is_none() {
            value["maximum"] = json!(largest);
        }
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(unsigned),
        Value::Array(items) => items.iter_mut().for_each(unsigned),
        _ => {}
    }
}

/// Allows objects in which one of `fields` is given and the others are not.
fn exactly_one(schema: &mut Value, fields: &[&str]) {
    let alternatives = fields.iter().map(|given| {
        let mut alternative = schema.clone();
        for field in fields {
            let property = &mut alternative["properties"][field];
            if field == given {
                without_null(property);
            } else {
                *property = json!({"type": "null"});
            }
        }
        alternative["required"] = json!([given]);
        alternative
    });
    let alternatives: Vec<_> = alternatives.collect();
    *schema = json!({"oneOf": alternatives});
}

/// Refuses objects in which no field is given.
fn at_least_one(schema: &mut Value) {
    let names = schema["properties"].as_object().into_iter().flatten();
    let alternatives = names.map(|(name, property)| {
        let mut property = property.clone();
        without_null(&mut property);
        json!({"required": [name], "properties": {name: property}})
    });
    schema["anyOf"] = alternatives.collect();
}

fn examples() -> [(&'static str, Value); 9] {
    [
        (
            "EmbeddingsRequest",
            json!({"model": "kith", "input": [IMAGE]}),
        ),
        (
            "EmbedRequest",
            json!({"model": "kith", "input_type": "image", "images": [IMAGE], "embedding_types": ["float"]}),
        ),
        ("ImageRequest", json!({"image": IMAGE})),
        ("SearchRequest", json!({"image": IMAGE, "k": 5})),
        (
            "PairsRequest",
            json!({"pairs": [{"anchor": {"image": IMAGE}, "group": "sku-81"}]}),
        ),
        ("TrainingUpdate", json!({"state": "paused"})),
        ("SnapshotRequest", json!({"note": "before the sale"})),
        (
            "CheckpointUpdate",
            json!({"note": "as shipped", "keep": true}),
        ),
        ("AliasRequest", json!({"checkpoint": "auto"})),
    ]
}

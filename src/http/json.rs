//! JSON bodies: parsed as objects, `null` as "not given", and refused with the field's path in plain words.

use std::{fmt, marker::PhantomData};

use axum::body::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
};
use serde_json::error::Category;

use super::{
    error::{ApiError, Problem},
    wrong_field::explain,
};

/// Above this a body is parsed away from the async threads, in bytes.
const PARSE_ELSEWHERE: usize = 64 * 1024;

/// Some editors and Windows tools write it before their text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON object. Derived types alone would take a list as well, its items as the fields in order.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// One of a few names, or `null`. A derived enum alone calls a number "not JSON".
pub(super) fn name<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.map(|text| -> StringDeserializer<D::Error> { text.into_deserializer() });
    text.map(T::deserialize).transpose()
}

/// Parses a JSON body and checks it with `then`; a large one away from the async threads, as both may take long.
pub(super) async fn parse<T: DeserializeOwned, R: Send + 'static>(
    body: Bytes,
    then: impl FnOnce(T) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let small = body.len() <= PARSE_ELSEWHERE;
    let work = move || json(&body).and_then(then);
    if small {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// Parses one JSON object; a refusal names the field.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.trim_ascii().is_empty() {
        let message = "the body is empty: send a JSON object";
        return Err(ApiError::BadRequest(Problem::new("invalid_json", message)));
    }
    let mut document = serde_json::Deserializer::from_slice(body);
    let value: Object<T> = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, &error.into_inner())
    })?;
    document.end().map_err(|error| not_json(&error))?;
    Ok(value.0)
}

fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if text.starts_with("number out of range") {
        return ApiError::invalid("invalid_field", path, "the number is too large");
    }
    match error.classify() {
        Category::Data => {
            let text = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
            ApiError::BadRequest(explain("invalid_field", path, text))
        }
        _ => not_json(error),
    }
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_eof() { "ends" } else { "goes wrong" };
    let message = format!("the body is not JSON: it {what} at line {line}, column {column}");
    ApiError::BadRequest(Problem::new("invalid_json", message))
}

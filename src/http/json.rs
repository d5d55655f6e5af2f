//! JSON bodies: parsed as objects, with `null` as "not given". An error names the path of the field.

use std::{fmt, marker::PhantomData};

use axum::body::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error, IntoDeserializer, MapAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
};
use serde_json::error::Category;

use super::{
    error::{ApiError, Problem},
    field_error::field_problem,
};

/// Bytes above which a body is parsed on a blocking thread.
const MAX_PARSED_INLINE: usize = 64 * 1024;

/// Written before the text by some editors and Windows tools.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON object. A derived struct alone would also accept a list of its fields' values.
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

/// Reads a variant's name, or `null`. For a number a derived enum alone fails as if the document were not JSON.
pub(super) fn optional_name<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.map(|text| -> StringDeserializer<D::Error> { text.into_deserializer() });
    text.map(T::deserialize).transpose()
}

/// Reads a whole number, or `null`. `4.0` is one, as in JSON Schema; derived integers refuse it.
pub(super) fn optional_whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct Whole<T>(PhantomData<T>);
    impl<T: TryFrom<u64>> Visitor<'_> for Whole<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, 0 or above")
        }
        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
            let too_large = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
            T::try_from(number).map(Some).map_err(too_large)
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }
        fn visit_f64<E: Error>(self, number: f64) -> Result<Option<T>, E> {
            match whole(number) {
                Some(number) => self.visit_u64(number),
                None => Err(E::invalid_value(Unexpected::Float(number), &self)),
            }
        }
    }
    deserializer.deserialize_any(Whole(PhantomData))
}

/// `number` as an integer, if it is whole and fits.
pub(super) fn whole(number: f64) -> Option<u64> {
    let fits = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
    fits.then_some(number as u64)
}

/// Parses a JSON body and passes it to `then`; a large body on a blocking thread, since both may take long.
pub(super) async fn parse<T: DeserializeOwned, R: Send + 'static>(
    body: Bytes,
    then: impl FnOnce(T) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let small = body.len() <= MAX_PARSED_INLINE;
    let work = move || from_slice(&body).and_then(then);
    if small {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// Parses one JSON object; an error names the field.
pub(super) fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.trim_ascii().is_empty() {
        let message = "the body is empty: send a JSON object";
        return Err(ApiError::BadRequest(Problem::new("invalid_json", message)));
    }
    let mut document = serde_json::Deserializer::from_slice(body);
    let value: Object<T> = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        invalid_field(&path, &error.into_inner())
    })?;
    document.end().map_err(|error| not_json(&error))?;
    Ok(value.0)
}

fn invalid_field(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if text.starts_with("number out of range") {
        return ApiError::invalid("invalid_field", path, "the number is too large");
    }
    match error.classify() {
        Category::Data => {
            let text = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
            ApiError::BadRequest(field_problem("invalid_field", path, text))
        }
        _ => not_json(error),
    }
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_eof() {
        "it ends too early"
    } else {
        "there is an error"
    };
    let message = format!("the body is not JSON: {what} at line {line}, column {column}");
    ApiError::BadRequest(Problem::new("invalid_json", message))
}

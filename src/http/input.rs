//! Images inside JSON: a data URI, bare base64, or an object around either. URLs are refused; nothing is fetched.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr,
        schema::{Schema, SchemaFormat, SchemaType as SchemaTypes, Type as SchemaType},
    },
};

use super::{
    error::{ApiError, Problem},
    json,
};

const UNPADDED_OR_PADDED: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, UNPADDED_OR_PADDED);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, UNPADDED_OR_PADDED);

const IMAGE: &str = "an image: a data URI, base64, {\"image\": …} or {\"type\": \"image_url\", \"image_url\": {\"url\": …}}";

/// The `format` of an image's text in the document of the interface.
const IMAGE_FORMAT: &str = "image-base64";

/// An image as text, or as an object around it: Jina's, or that of chat interfaces.
#[derive(Debug)]
pub(super) struct ImageInput(pub(super) String);

/// One image, or a list of them.
#[derive(Debug)]
pub(super) struct Images(pub(super) Vec<ImageInput>);

/// Exactly one of the fields besides `type` is given.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImageObject {
    image: Option<Url>,
    image_url: Option<Url>,
    /// Says again that it is an image.
    #[serde(default, rename = "type", deserialize_with = "json::optional_name")]
    #[schema(schema_with = image_type)]
    _type: Option<Type>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    #[serde(alias = "image", alias = "input_image")]
    ImageUrl,
}

/// Derived schemas leave aliases out.
fn image_type() -> Schema {
    let types = SchemaTypes::from_iter([SchemaType::String, SchemaType::Null]);
    let text = ObjectBuilder::new().schema_type(types);
    let names = ["image_url", "image", "input_image"].map(Some);
    text.enum_values(Some(names.into_iter().chain([None])))
        .into()
}

/// `"data:…"` or `{"url": "data:…"}`.
struct Url(String);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UrlObject {
    #[schema(format = "image-base64")]
    url: String,
    /// Of chat interfaces; an image is always seen whole.
    #[serde(default, rename = "detail")]
    _detail: Option<String>,
}

/// What holds an image's text. `None`: it holds none, or several.
trait Holder {
    fn text(self) -> Option<String>;
}

impl Holder for ImageObject {
    fn text(self) -> Option<String> {
        match (self.image, self.image_url) {
            (Some(Url(text)), None) | (None, Some(Url(text))) => Some(text),
            _ => None,
        }
    }
}

impl Holder for UrlObject {
    fn text(self) -> Option<String> {
        Some(self.url)
    }
}

/// The text of an image, or an object around it.
fn text_or(object: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(SchemaType::String);
    let text = text.description(Some("A data URI, or bare base64. URLs are refused."));
    let text = text.format(Some(SchemaFormat::Custom(IMAGE_FORMAT.to_owned())));
    let object = Ref::from_schema_name(object);
    OneOfBuilder::new().item(text).item(object).into()
}

impl PartialSchema for Url {
    fn schema() -> RefOr<Schema> {
        text_or("ImageUrl")
    }
}

impl ToSchema for Url {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ImageUrl".to_owned(), UrlObject::schema()));
    }
}

impl PartialSchema for ImageInput {
    fn schema() -> RefOr<Schema> {
        text_or("ImageObject")
    }
}

impl ToSchema for ImageInput {
    fn name() -> Cow<'static, str> {
        "Image".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ImageObject".to_owned(), ImageObject::schema()));
        ImageObject::schemas(schemas);
    }
}

impl PartialSchema for Images {
    fn schema() -> RefOr<Schema> {
        let image = Ref::from_schema_name("Image");
        let list = ArrayBuilder::new().items(image.clone()).min_items(Some(1));
        OneOfBuilder::new().item(image).item(list).into()
    }
}

impl ToSchema for Images {
    fn name() -> Cow<'static, str> {
        "Images".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("Image".to_owned(), ImageInput::schema()));
        ImageInput::schemas(schemas);
    }
}

/// Reads a text, or an object that holds one.
struct TextOr<T>(PhantomData<T>);

impl<'de, T: Holder + Deserialize<'de>> Visitor<'de> for TextOr<T> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(IMAGE)
    }
    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
    fn visit_string<E>(self, text: String) -> Result<String, E> {
        Ok(text)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<String, A::Error> {
        let holder = T::deserialize(MapAccessDeserializer::new(map))?;
        let none = || A::Error::invalid_value(Unexpected::Map, &self);
        holder.text().ok_or_else(none)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = TextOr::<UrlObject>(PhantomData);
        deserializer.deserialize_any(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for ImageInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = TextOr::<ImageObject>(PhantomData);
        deserializer.deserialize_any(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Images;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{IMAGE}, or a list of them")
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Images(vec![ImageInput(text.to_owned())]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let text = TextOr::<ImageObject>(PhantomData).visit_map(map)?;
                Ok(Images(vec![ImageInput(text)]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Images)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl ImageInput {
    /// Decodes the bytes of the image file. `param`: path of the field, for errors.
    pub(super) fn bytes(&self, max_bytes: usize, param: &str) -> Result<Bytes, ApiError> {
        let text = base64_part(&self.0)
            .map_err(|problem| ApiError::BadRequest(problem.with_param(param)))?;
        let text = unescaped(text);
        // Four characters hold three bytes. This is checked before the bytes are allocated.
        if text.len() / 4 * 3 > max_bytes.saturating_add(3) {
            let message = format!(
                "the image has more than limits.max_bytes = {max_bytes} bytes: send a smaller one"
            );
            return Err(ApiError::TooLarge(
                Problem::new("image_too_large", message).with_param(param),
            ));
        }
        decode(&text).ok_or_else(|| {
            let message = "this is neither a data URI nor base64: send data:image/png;base64,…";
            ApiError::invalid("image_undecodable", param, message)
        })
    }
}

/// The base64 text of a data URI or of a bare string.
fn base64_part(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    let starts = |prefix: &str| {
        let start = text.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts("http://") || starts("https://") {
        let message =
            "the server fetches nothing: send the image itself, as data:image/png;base64,…";
        return Err(Problem::new("url_not_supported", message));
    }
    if !starts("data:") {
        return Ok(text);
    }
    // A quoted parameter may hold a comma; base64 never does.
    let parts = text.rsplit_once(',');
    let encoded = parts.filter(|(head, _)| {
        let mut parameters = head.split(';').skip(1);
        parameters.any(|parameter| parameter.trim().eq_ignore_ascii_case("base64"))
    });
    encoded.map(|(_, data)| data).ok_or_else(|| {
        let message = "the data URI is not base64: send data:image/png;base64,…";
        Problem::new("image_undecodable", message)
    })
}

/// Removes white space, and the percent-encoding that a URI may have.
fn unescaped(text: &str) -> Cow<'_, str> {
    let mut unescaped = Cow::Borrowed(text);
    if text.contains('%') {
        let escapes = [
            ("%2b", "+"),
            ("%2f", "/"),
            ("%3d", "="),
            ("%0a", ""),
            ("%0d", ""),
            ("%20", ""),
        ];
        for (escape, letter) in escapes {
            unescaped = unescaped
                .replace(escape, letter)
                .replace(&escape.to_ascii_uppercase(), letter)
                .into();
        }
    }
    if unescaped.contains(|c: char| c.is_ascii_whitespace()) {
        unescaped = unescaped
            .split_ascii_whitespace()
            .collect::<String>()
            .into();
    }
    unescaped
}

/// Decodes base64 of either alphabet, padded or not.
fn decode(text: &str) -> Option<Bytes> {
    let engine = if text.contains(['-', '_']) {
        URL_SAFE
    } else {
        STANDARD
    };
    let decoded = engine.decode(text).ok();
    decoded.filter(|bytes| !bytes.is_empty()).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Bytes, ApiError> {
        ImageInput(text.to_owned()).bytes(100, "input[0]")
    }

    #[test]
    fn data_uris_and_base64_of_either_alphabet_padded_or_broken_into_lines_are_read() {
        for text in [
            "data:image/png;base64,+/8A",
            "DATA:;BASE64,+/8A",
            "+/8A",
            "-_8A",
            "+/\n8A\n",
            " data:image/png; charset=utf-8 ;name=\"a,b\"; base64 , +/8A ",
            "data:image/png;base64;charset=utf-8,+/8A",
            "data:image/png;base64,%2B%2f8A",
        ] {
            assert_eq!(bytes(text).unwrap()[..], [0xfb, 0xff, 0], "{text}");
        }
        assert_eq!(bytes("+/8=").unwrap(), bytes("+/8").unwrap());
    }

    #[test]
    fn what_is_not_an_image_is_refused_with_a_code_and_the_field() {
        let large = "A".repeat(400);
        for (text, code) in [
            ("https://example.org/a.png", "url_not_supported"),
            ("HTTP://example.org/a.png", "url_not_supported"),
            ("data:image/png,abc", "image_undecodable"),
            ("not base64!", "image_undecodable"),
            ("", "image_undecodable"),
            (large.as_str(), "image_too_large"),
        ] {
            let error = bytes(text).unwrap_err();
            assert_eq!(error.problem().code, code, "{text}");
            assert_eq!(error.problem().param.as_deref(), Some("input[0]"));
        }
    }
}

//! The formats in which the values of a vector are sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::serve::quantize;

/// How the values of a vector are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// JSON numbers.
    #[default]
    Float,
    /// Little-endian f32, in base64.
    Base64,
    /// Whole numbers from −127 to 127.
    Int8,
    /// Whole numbers from 1 to 255, 128 for zero.
    Uint8,
    /// One bit a value, eight to a number from −128 to 127.
    Binary,
    /// One bit a value, eight to a number from 0 to 255.
    Ubinary,
}

impl Format {
    /// Whether values are rounded to a range.
    pub(super) fn is_quantized(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }

    /// The name in requests and answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Base64 => "base64",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// `values` for a JSON answer. `range`: largest magnitude that 8 bits express.
    pub(super) fn json(self, values: Vec<f32>, range: f32) -> Values {
        match self {
            Self::Float => Values::Float(values),
            Self::Base64 => Values::Base64(STANDARD.encode(self.bytes(&values, range))),
            Self::Int8 => Values::Signed(quantize::to_int8(&values, range)),
            Self::Uint8 => Values::Unsigned(quantize::to_uint8(&values, range)),
            Self::Binary => Values::Signed(signed_bits(&values)),
            Self::Ubinary => Values::Unsigned(quantize::to_bits(&values)),
        }
    }

    /// `values` as raw bytes.
    pub(super) fn bytes(self, values: &[f32], range: f32) -> Vec<u8> {
        let raw = |signed: Vec<i8>| signed.into_iter().map(i8::cast_unsigned).collect();
        match self {
            Self::Float | Self::Base64 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::Int8 => raw(quantize::to_int8(values, range)),
            Self::Uint8 => quantize::to_uint8(values, range),
            Self::Binary => raw(signed_bits(values)),
            Self::Ubinary => quantize::to_bits(values),
        }
    }
}

/// Bytes of bits minus 128, as Cohere and sentence-transformers have them.
fn signed_bits(values: &[f32]) -> Vec<i8> {
    let signed = |byte: u8| (i16::from(byte) - 128) as i8;
    quantize::to_bits(values).into_iter().map(signed).collect()
}

/// The values of a vector in an answer.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Values {
    Float(Vec<f32>),
    Base64(String),
    Signed(Vec<i8>),
    Unsigned(Vec<u8>),
}

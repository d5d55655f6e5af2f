//! Ids and records that rooms share. Knows no room, does no IO.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::Digest;
use uuid::Uuid;

/// Dense key of a stored image: the database's integer primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageKey(pub u32);

/// Dense key of a stored pair, ascending in order of arrival; at most 2³¹ − 1, so that a [`SlotKey`] fits 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairKey(pub u32);

/// Dense key of a group name: images of one group are never each other's negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey(pub u32);

/// Which image of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The pair's `anchor` image.
    Anchor,
    /// The pair's `positive` image.
    Positive,
}

/// One place an image holds in the training set: (pair, side). It names both an anchor with its chain,
/// and a candidate negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotKey(u32);

impl SlotKey {
    /// The slot of `side` in `pair`.
    pub fn new(pair: PairKey, side: Side) -> Self {
        debug_assert!(pair.0 < 1 << 31, "pair keys stay below 2^31");
        Self(pair.0 << 1 | (side == Side::Positive) as u32)
    }

    /// The pair this slot belongs to.
    pub fn pair(self) -> PairKey {
        PairKey(self.0 >> 1)
    }

    /// The side of its pair.
    pub fn side(self) -> Side {
        if self.0 & 1 == 0 {
            Side::Anchor
        } else {
            Side::Positive
        }
    }

    /// The packed form, `pair · 2 + side`, as the chain table's file stores it.
    pub fn packed(self) -> u32 {
        self.0
    }

    /// The slot of a packed form.
    pub fn from_packed(packed: u32) -> Self {
        Self(packed)
    }
}

/// The SHA-256 of an image's bytes: its id outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The raw digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest read back from storage.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("an image id is 64 hexadecimal digits, the SHA-256 of the image's bytes")]
pub struct NotASha256;

impl FromStr for Sha256 {
    type Err = NotASha256;

    fn from_str(text: &str) -> Result<Self, NotASha256> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(NotASha256);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(0..) {
            *byte =
                u8::from_str_radix(&text[2 * pair..2 * pair + 2], 16).map_err(|_| NotASha256)?;
        }
        Ok(Self(digest))
    }
}

/// Identity of a checkpoint: a UUIDv7, so ids sort by the time they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointId(pub Uuid);

impl CheckpointId {
    /// A new id, later than all before it.
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for CheckpointId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// One named array in row-major order: how weights and moments travel between rooms without a tensor library.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// torchvision's key, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The dimensions, outermost first, in PyTorch's order (convolutions: `[out, in, kernel, kernel]`).
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

impl NamedArray {
    /// Whether no value is infinite or not a number.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }
}

/// One 64-bit seed from several: (seed, step, what for). Two lists that differ anywhere give unrelated seeds, which is what lets a
/// resumed run draw the same numbers as one that was never stopped. The mixer is SplitMix64's finaliser (Steele, Lea & Flood 2014).
pub fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

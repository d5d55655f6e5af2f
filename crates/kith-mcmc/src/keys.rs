//! Dense keys of images, pairs and groups, and of the slots that pairs give to images.

use serde::{Deserialize, Serialize};

/// Dense key of a stored image: the database's integer primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageKey(pub u32);

/// Dense key of a stored pair, ascending in order of arrival. At most 2³¹ − 1, so that a [`SlotKey`] fits in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairKey(pub u32);

impl PairKey {
    /// Its two slots, the anchor's first.
    pub fn slots(self) -> [SlotKey; 2] {
        Side::BOTH.map(|side| SlotKey::new(self, side))
    }
}

/// Dense key of a group's name. Images of one group are never each other's negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey(pub u32);

/// An image as the encoder of one side sees it. Where both sides share an encoder, every image is on the anchor's side.
///
/// With an encoder for each side, an image that stands on both sides of pairs has two embeddings, and counts as two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SidedImage {
    /// The image.
    pub image: ImageKey,
    /// The side whose encoder it goes through.
    pub side: Side,
}

/// Which image of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The pair's `anchor` image.
    Anchor,
    /// The pair's `positive` image.
    Positive,
}

impl Side {
    /// Both sides, the anchor's first.
    pub const BOTH: [Self; 2] = [Self::Anchor, Self::Positive];

    /// The other side.
    pub fn other(self) -> Self {
        match self {
            Self::Anchor => Self::Positive,
            Self::Positive => Self::Anchor,
        }
    }

    /// 0 for the anchor's side, 1 for the positive's.
    pub fn index(self) -> usize {
        match self {
            Self::Anchor => 0,
            Self::Positive => 1,
        }
    }
}

/// One place of an image in the training set: (pair, side). A slot is both an anchor with a chain of its own and a candidate negative.
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

    /// The packed form, `2 · pair + side`, as the chain table's file stores it.
    pub fn packed(self) -> u32 {
        self.0
    }

    /// The slot with the given packed form.
    pub fn from_packed(packed: u32) -> Self {
        Self(packed)
    }
}

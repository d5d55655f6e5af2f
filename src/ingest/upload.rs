//! Pairs as callers post them.

use bytes::Bytes;

use crate::types::Sha256;
use kith_mcmc::PairWeight;

/// One side of a posted pair.
#[derive(Clone, Debug)]
pub enum Upload {
    /// The bytes of an image file.
    Bytes(Bytes),
    /// The id of a stored image.
    Id(Sha256),
}

/// A posted pair.
#[derive(Clone, Debug)]
pub struct PairUpload {
    /// The anchor.
    pub anchor: Upload,
    /// The positive; `None`: the anchor's own two views.
    pub positive: Option<Upload>,
    /// Group name.
    pub group: Option<String>,
    /// How much it counts in the loss; `None`: 1.
    pub weight: Option<PairWeight>,
}

/// Where in a request something is wrong: index of the pair and `anchor` or `positive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the pair in the request.
    pub index: usize,
    /// `anchor` or `positive`.
    pub side: &'static str,
}

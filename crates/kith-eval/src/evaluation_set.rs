//! The images that an encoder is evaluated on, as encoded files in memory.

use bytes::Bytes;

/// Two sides of labelled images. An anchor and a positive with equal labels are relevant to each other. The sides may differ in length;
/// a row whose label the other side lacks is part of the gallery and never a query.
#[derive(Clone, Debug, Default)]
pub struct EvaluationSet {
    /// Encoded image files.
    pub anchors: Vec<Bytes>,
    /// Encoded image files.
    pub positives: Vec<Bytes>,
    /// One label for each anchor.
    pub anchor_labels: Vec<u64>,
    /// One label for each positive.
    pub positive_labels: Vec<u64>,
    /// Digest of images and labels: two evaluations compare where it is equal. Empty for a set that is compared with no other.
    pub questions: String,
}

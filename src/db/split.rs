//! Decides what a new pair is used for.
//!
//! The rule keeps the two sides apart: no image, and no group, ever has both a trained and a held-out pair. A pair that is related to
//! neither is split by a hash, so that a database filled again from the same pairs is split alike.

use super::records::Split;
use crate::types::Sha256;

/// What is known of a pair's images and group before it comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Relations {
    /// One of them belongs to a pair that is trained on.
    pub(super) trained: bool,
    /// One of them belongs to a pair that is held out.
    pub(super) held_out: bool,
}

/// The use of a new pair whose images and group have `relations`; `position` comes from [`position`].
pub(super) fn split_of(relations: Relations, position: f64, holdout_share: f64) -> Split {
    match (relations.trained, relations.held_out) {
        (true, true) => Split::Unused,
        (true, false) => Split::Train,
        (false, true) => Split::Holdout,
        (false, false) if position < holdout_share => Split::Holdout,
        (false, false) => Split::Train,
    }
}

/// A number in [0, 1) from a pair's group, or else from its two images, either way round.
pub(super) fn position(images: [Sha256; 2], group: Option<&str>) -> f64 {
    let digest = match group {
        Some(name) => Sha256::digest(format!("group {name}").as_bytes()),
        None => {
            let [less, greater] = [images[0].min(images[1]), images[0].max(images[1])];
            Sha256::digest(&[less.as_bytes().as_slice(), greater.as_bytes()].concat())
        }
    };
    let leading = digest.as_bytes()[..8]
        .iter()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    kith_seed::unit(leading)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: u32) -> Sha256 {
        Sha256::digest(&n.to_le_bytes())
    }

    #[test]
    fn relations_decide_before_the_hash_does() {
        let split = |trained, held_out, position| {
            let relations = Relations { trained, held_out };
            split_of(relations, position, 0.1)
        };
        assert_eq!(split(false, false, 0.09), Split::Holdout);
        assert_eq!(split(false, false, 0.1), Split::Train);
        assert_eq!(split(true, false, 0.0), Split::Train);
        assert_eq!(split(false, true, 0.9), Split::Holdout);
        assert_eq!(split(true, true, 0.0), Split::Unused);
    }

    #[test]
    fn a_share_of_0_holds_nothing_out_and_1_everything() {
        for pair in 0..1000 {
            let position = position([image(pair), image(pair + 1)], None);
            assert_eq!(
                split_of(Relations::default(), position, 0.0),
                Split::Train,
                "{pair}"
            );
            assert_eq!(
                split_of(Relations::default(), position, 1.0),
                Split::Holdout,
                "{pair}"
            );
        }
    }

    #[test]
    fn the_share_held_out_is_the_share_asked_for() {
        let below = |share| {
            (0..10_000)
                .filter(|pair| position([image(*pair), image(pair + 1)], None) < share)
                .count()
        };
        // Three standard deviations of a binomial count: 3 · √(10⁴ · 0.1 · 0.9) = 90, 3 · √(10⁴ · 0.5²) = 150.
        assert!(below(0.1).abs_diff(1000) <= 90, "{}", below(0.1));
        assert!(below(0.5).abs_diff(5000) <= 150, "{}", below(0.5));
    }

    #[test]
    fn the_position_is_the_same_either_way_round_and_the_groups_if_there_is_one() {
        let (a, b) = (image(1), image(2));
        assert_eq!(position([a, b], None), position([b, a], None));
        assert_eq!(
            position([a, b], Some("g")),
            position([image(3), a], Some("g"))
        );
        assert_ne!(position([a, b], Some("g")), position([a, b], Some("h")));
        assert_ne!(position([a, b], None), position([a, a], None));
    }
}

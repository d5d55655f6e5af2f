//! Compares two encoders without any labels: do the same images lie next to each other?

use std::collections::VecDeque;

use kith_mcmc::Side;

/// Images that are looked among.
const WINDOW: usize = 256;
/// Neighbours of each image that are compared.
const NEIGHBOURS: usize = 10;

/// The newest images as two encoders embed them, and how far their neighbours have agreed.
#[derive(Default)]
pub(super) struct Neighbours {
    /// Of each side by itself: embeddings of two encoders' spaces are no neighbours.
    newest: [VecDeque<[Vec<f32>; 2]>; 2],
    images: u64,
    compared: u64,
    /// Sum of the shares of equal neighbours.
    shared: f64,
}

impl Neighbours {
    /// Adds an image of `side`, as both embed it. Its neighbours are those among the side's images before it, of which there must be twice as
    /// many as are compared.
    pub(super) fn add(&mut self, side: Side, embeddings: [&[f32]; 2]) {
        let newest = &mut self.newest[side.index()];
        if newest.len() >= 2 * NEIGHBOURS {
            let [own, candidate] = [0, 1].map(|by| nearest(newest, by, embeddings[by]));
            let equal = own.iter().filter(|image| candidate.contains(image)).count();
            self.shared += equal as f64 / NEIGHBOURS as f64;
            self.compared += 1;
        }
        if newest.len() == WINDOW {
            newest.pop_front();
        }
        newest.push_back(embeddings.map(<[f32]>::to_vec));
        self.images += 1;
    }

    /// Images so far.
    pub(super) fn images(&self) -> u64 {
        self.images
    }

    /// Mean share of equal neighbours, from 0 to 1.
    pub(super) fn shared(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.shared / self.compared as f64)
    }
}

/// The places of the images nearest to `embedding` by cosine, as the encoder `by` embeds them; all have unit length.
fn nearest(newest: &VecDeque<[Vec<f32>; 2]>, by: usize, embedding: &[f32]) -> Vec<usize> {
    let scores = newest.iter().map(|image| dot(&image[by], embedding));
    let mut scores: Vec<(f32, usize)> = scores.zip(0..).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores.truncate(NEIGHBOURS);
    scores.into_iter().map(|(_, place)| place).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use kith_seed::mix;

    use super::*;

    /// A unit vector in a direction of its own.
    fn unit(image: u64, space: u64) -> Vec<f32> {
        let value = |place| (mix(&[image, space, place]) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let values: Vec<f32> = (0..8).map(value).collect();
        let norm = dot(&values, &values).sqrt();
        values.iter().map(|value| value / norm).collect()
    }

    #[test]
    fn equal_spaces_share_all_neighbours_and_unrelated_ones_as_many_as_chance() {
        let (mut equal, mut unrelated) = (Neighbours::default(), Neighbours::default());
        for image in 0..600 {
            let (a, b) = (unit(image, 0), unit(image, 1));
            // A reflection keeps all cosines.
            let mirrored: Vec<f32> = a.iter().map(|value| -value).collect();
            equal.add(Side::Anchor, [&a, &mirrored]);
            unrelated.add(Side::Anchor, [&a, &b]);
        }
        assert_eq!(equal.images(), 600);
        assert_eq!(equal.shared(), Some(1.0));
        // Ten of at least 20 and mostly 256 images: 0.04 to 0.5, by chance about 0.06.
        let chance = unrelated.shared().unwrap();
        assert!(chance < 0.15, "{chance}");
    }

    #[test]
    fn each_side_has_neighbours_of_its_own() {
        let mut mixed = Neighbours::default();
        for image in 0..600 {
            let a = unit(image, 0);
            let mirrored: Vec<f32> = a.iter().map(|value| -value).collect();
            // One encoder mirrors the positives' side only: across sides its neighbours are others, within a side they are the same.
            mixed.add(Side::Anchor, [&a, &a]);
            mixed.add(Side::Positive, [&a, &mirrored]);
        }
        assert_eq!(mixed.shared(), Some(1.0));
    }

    #[test]
    fn few_images_say_nothing() {
        let mut few = Neighbours::default();
        for _ in 0..2 * NEIGHBOURS {
            few.add(Side::Anchor, [&[1.0], &[1.0]]);
        }
        assert_eq!(few.shared(), None);
    }
}

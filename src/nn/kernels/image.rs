//! Copying a batch of square images into a frame of zeros, so that windows at the border need no special case.
//! Must never know: convolutions.

use rayon::prelude::*;

use super::scratch::Scratch;

/// Square images with `channels` values a pixel and a frame of zeros around them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) side: usize,
    pub(super) channels: usize,
    /// Zeros above and left of the image.
    pub(super) before: usize,
    /// Zeros below and right of the image.
    pub(super) after: usize,
}

impl Frame {
    /// Side of the framed image.
    pub(super) fn framed_side(self) -> usize {
        self.side + self.before + self.after
    }

    /// Values in a framed image.
    pub(super) fn framed_len(self) -> usize {
        self.framed_side() * self.framed_side() * self.channels
    }

    /// A copy of `images` (`[batch, side, side, channels]`) with the frame around each.
    pub(super) fn pad(self, images: &[f32]) -> Scratch {
        let len = self.side * self.side * self.channels;
        let mut framed = Scratch::dirty(images.len() / len * self.framed_len());
        framed
            .par_chunks_mut(self.framed_len())
            .zip(images.par_chunks(len))
            .for_each(|(framed, image)| self.pad_one(image, framed));
        framed
    }

    fn pad_one(self, image: &[f32], framed: &mut [f32]) {
        let row_len = self.side * self.channels;
        let framed_row = self.framed_side() * self.channels;
        let (top, rest) = framed.split_at_mut(self.before * framed_row);
        let (middle, bottom) = rest.split_at_mut(self.side * framed_row);
        top.fill(0.0);
        bottom.fill(0.0);
        let left = self.before * self.channels;
        for (framed, row) in middle
            .chunks_exact_mut(framed_row)
            .zip(image.chunks_exact(row_len))
        {
            framed[..left].fill(0.0);
            framed[left..left + row_len].copy_from_slice(row);
            framed[left + row_len..].fill(0.0);
        }
    }
}

/// Where the windows of each image start: `[batch, rows, columns]`, windows `step` pixels apart, the first at (`top`, `left`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) count: usize,
    pub(super) step: usize,
    pub(super) top: usize,
    pub(super) left: usize,
}

impl Windows {
    /// Offsets of all windows of `batch` framed images.
    pub(super) fn offsets(self, batch: usize, frame: Frame) -> Vec<usize> {
        let (side, channels) = (frame.framed_side(), frame.channels);
        let mut offsets = Vec::with_capacity(batch * self.count * self.count);
        for image in 0..batch {
            for y in 0..self.count {
                let row = image * side + self.top + y * self.step;
                offsets.extend(
                    (0..self.count).map(|x| (row * side + self.left + x * self.step) * channels),
                );
            }
        }
        offsets
    }
}

//! STL-10's binary files (Coates, Ng & Lee 2011): three planes of 96 × 96 bytes an image, red first, each plane column by column; labels
//! are one byte an image, counted from 1.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use super::StudyError;
use kith_pixels::DecodedImage;

const SIDE: usize = 96;
const PLANE: usize = SIDE * SIDE;
const BYTES: usize = 3 * PLANE;

/// The number of images in a file.
pub(super) fn count(path: &Path) -> Result<usize, StudyError> {
    let bytes = fs::metadata(path)
        .map_err(|error| StudyError::io(path, error))?
        .len() as usize;
    if !bytes.is_multiple_of(BYTES) {
        return Err(StudyError::config(format!(
            "{} has {bytes} bytes, which is not a multiple of an image's {BYTES}: is it whole?",
            path.display()
        )));
    }
    Ok(bytes / BYTES)
}

/// The image at `index` of a file.
pub(super) fn image(path: &Path, index: usize) -> Result<DecodedImage, StudyError> {
    let mut planes = vec![0; BYTES];
    let read = |planes: &mut Vec<u8>| {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start((index * BYTES) as u64))?;
        file.read_exact(planes)
    };
    read(&mut planes).map_err(|error| StudyError::io(path, error))?;
    let pixel = |index: usize| {
        let (row, column) = (index / SIDE, index % SIDE);
        [0, 1, 2].map(|channel| planes[channel * PLANE + column * SIDE + row])
    };
    Ok(DecodedImage::opaque(
        SIDE as u32,
        SIDE as u32,
        (0..PLANE).flat_map(pixel).collect(),
    ))
}

/// The classes of a file of labels, counted from 0.
pub(super) fn labels(path: &Path) -> Result<Vec<usize>, StudyError> {
    let bytes = fs::read(path).map_err(|error| StudyError::io(path, error))?;
    match bytes.iter().find(|label| !(1..=10).contains(*label)) {
        None => Ok(bytes.iter().map(|label| usize::from(label - 1)).collect()),
        Some(label) => Err(StudyError::config(format!(
            "{} holds a label {label}, which is not 1 to 10",
            path.display()
        ))),
    }
}

//! Opens a file of named arrays, whichever format it has.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{
    WeightsError, safetensors_file::SafetensorsFile, source::Source, torch_file::TorchFile,
};

/// Most bytes of a file. ResNet-18 in 64 bits with an optimiser's moments stays below it.
const MAX_BYTES: u64 = 1 << 30;
/// Where a tar archive says that it is one.
const TAR_MARK: std::ops::Range<usize> = 257..262;

/// A file that was recognised.
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// Hexadecimal SHA-256 of the bytes that the source reads, whatever the path names later.
    pub(super) sha256: String,
}

/// Opens a file by what its first bytes say.
pub(super) fn open(path: &Path) -> Result<Opened, WeightsError> {
    // Opening a pipe would wait for its bytes.
    if !fs::metadata(path)?.is_file() {
        return Err(WeightsError::malformed("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    if about.len() > MAX_BYTES {
        return Err(WeightsError::TooLarge {
            found: about.len(),
            max: MAX_BYTES,
        });
    }
    let mut head = Vec::with_capacity(512);
    file.by_ref().take(512).read_to_end(&mut head)?;
    file.rewind()?;
    if head.starts_with(b"PK") {
        let sha256 = sha256(&file)?;
        file.rewind()?;
        Ok(Opened {
            source: Box::new(TorchFile::open(file, about.len())?),
            sha256,
        })
    } else if is_pickle(&head) || is_old_archive(&head) {
        Err(WeightsError::OldTorch)
    } else if head.starts_with(b"version https://git-lfs") {
        Err(WeightsError::malformed(
            "it is a pointer of Git LFS: fetch the file itself",
        ))
    } else {
        let mut bytes = Vec::new();
        // The limit holds should the file grow meanwhile.
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Opened {
            sha256: hex(&Sha256::digest(&bytes)),
            source: Box::new(SafetensorsFile::new(bytes)?),
        })
    }
}

/// Whether a file begins as a pickle does. A safetensors file may begin with the same byte, but its first eight are a small number.
fn is_pickle(head: &[u8]) -> bool {
    head.starts_with(&[0x80]) && head.get(4..8) != Some(&[0; 4])
}

/// Whether a file begins as the tar archives of the first versions of PyTorch do.
fn is_old_archive(head: &[u8]) -> bool {
    let members: [&[u8]; 4] = [b"sys_info\0", b"pickle\0", b"storages\0", b"tensors\0"];
    head.get(TAR_MARK) == Some(b"ustar") && members.iter().any(|name| head.starts_with(name))
}

/// The hexadecimal SHA-256 of what is left of a file.
fn sha256(mut file: &File) -> Result<String, WeightsError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

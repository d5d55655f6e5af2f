//! Reads the files that a list or an argument names.

use std::{fs, io, path::Path};

/// Most bytes of a file: what is larger is no image that a server takes, and no list.
const MAX_BYTES: u64 = 1 << 30;

/// The content of a file. A pipe or a device may have no end, so it is refused before it is opened.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::metadata(path)?;
    if !file.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if file.len() > MAX_BYTES {
        let message = format!("it has {} bytes, at most {MAX_BYTES} are read", file.len());
        return Err(io::Error::other(message));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        for path in ["/dev/zero", "/"] {
            let error = read_file(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.png");
        fs::File::create(&path)
            .unwrap()
            .set_len(MAX_BYTES + 1)
            .unwrap();
        assert!(read_file(&path).is_err());
        fs::write(&path, b"small").unwrap();
        assert_eq!(read_file(&path).unwrap(), b"small");
    }
}

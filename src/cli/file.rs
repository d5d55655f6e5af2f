//! Reads the files that a list or an argument names, and keeps results from being written over them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::ensure;

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

/// The content of a file that should be an image. Without a byte it would be sent as a request without an image.
pub(super) fn read_image(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = read_file(path)?;
    if bytes.is_empty() {
        return Err(io::Error::other("the file is empty"));
    }
    Ok(bytes)
}

/// Refuses an output that is one of the inputs, by whatever path each is named.
///
/// # Errors
/// It is; the error says what to do.
pub(super) fn refuse_inputs(output: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    // A file that is not there yet is no input.
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(written) = file(output) else {
        return Ok(());
    };
    ensure!(
        !inputs.iter().any(|input| file(input) == Some(written)),
        "{} is an input: name another --output",
        output.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_an_input_by_any_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.png"), "a").unwrap();
        fs::write(path("b.png"), "a").unwrap();
        std::os::unix::fs::symlink(path("a.png"), path("link.png")).unwrap();
        let inputs = [path("a.png"), path("missing.png")];
        for output in ["a.png", "./a.png", "link.png"] {
            let refused = refuse_inputs(&path(output), &inputs).unwrap_err();
            assert!(refused.to_string().contains("--output"), "{refused}");
        }
        for output in ["b.png", "new.png", "missing.png"] {
            refuse_inputs(&path(output), &inputs).unwrap();
        }
    }

    #[test]
    fn an_image_without_bytes_is_refused_before_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.png");
        fs::write(&path, "").unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
        // A list may be empty: what reads it says what it lacks.
        assert_eq!(read_file(&path).unwrap(), b"");
    }

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

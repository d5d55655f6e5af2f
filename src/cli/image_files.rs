//! The image files that a command line names: files, folders that are searched, and lists of paths.

use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{
    file::read_file,
    folder,
    table::{Columns, Table},
};

/// Standard input, as the name of a list.
const STANDARD_INPUT: &str = "-";

/// The files of `inputs`, without doubles: a folder stands for the image files in it; a CSV for those of its column `path`; a `.txt` file, or `-` for
/// standard input, for one path a line. Paths in a list are relative to it, or to the working folder for standard input. What is left out is printed.
///
/// # Errors
/// A list or a folder cannot be read, or nothing is left.
pub(crate) fn image_files(inputs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for input in inputs {
        if input.as_os_str() == STANDARD_INPUT {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.context("standard input is no list of paths")?;
            files.extend(paths(&text, Path::new("")));
        } else if input.is_dir() {
            let (found, rest) = folder::walk(input)?;
            files.extend(found);
            left_out.extend(rest);
        } else if has_extension(input, "txt") {
            let name = input.display();
            let bytes = read_file(input).with_context(|| format!("{name} cannot be read"))?;
            let text = String::from_utf8(bytes).ok();
            let text = text.with_context(|| format!("{name} is not UTF-8 text"))?;
            files.extend(paths(&text, beside(input)));
        } else if has_extension(input, "csv") {
            from_csv(input, &mut files, &mut left_out)?;
        } else {
            files.push(input.clone());
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    folder::report(&left_out);
    ensure!(
        !files.is_empty(),
        "there is no image file in what was named"
    );
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    let found = path.extension().and_then(OsStr::to_str);
    found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn beside(list: &Path) -> &Path {
    list.parent().unwrap_or(Path::new(""))
}

/// One path a line; empty lines are none.
fn paths(text: &str, folder: &Path) -> Vec<PathBuf> {
    let lines = text.trim_start_matches('\u{feff}').lines();
    let lines = lines.filter(|line| !line.trim().is_empty());
    lines.map(|line| folder.join(line)).collect()
}

fn from_csv(
    list: &Path,
    files: &mut Vec<PathBuf>,
    left_out: &mut Vec<String>,
) -> anyhow::Result<()> {
    let columns = Columns {
        required: &["path"],
        optional: &[],
        others: true,
    };
    let Table { rows, problems } = Table::read(list, &columns)?;
    left_out.extend(problems);
    for mut row in rows {
        match row.cells.pop().flatten() {
            Some(path) => files.push(beside(list).join(path)),
            None => left_out.push(format!("{} line {}: no path", list.display(), row.line)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_folders_and_lists_may_be_mixed_and_each_file_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("deep/a.png"), "").unwrap();
        fs::write(at("list.txt"), "deep/a.png\n\ndeep/missing.jpg\r\n").unwrap();
        fs::write(at("list.csv"), "label,path\n1,b.png\n2,\n").unwrap();
        let inputs = ["deep", "list.txt", "list.csv", "c.unknown"].map(at);
        let files = image_files(&inputs).unwrap();
        assert_eq!(
            files,
            ["deep/a.png", "deep/missing.jpg", "b.png", "c.unknown"].map(at)
        );
    }

    #[test]
    fn a_csv_without_a_column_of_paths_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.csv");
        fs::write(&list, "file\na.png\n").unwrap();
        let refused = format!("{:#}", image_files(&[list]).unwrap_err());
        assert!(
            refused.contains("list.csv") && refused.contains("path"),
            "{refused}"
        );
    }
}

//! Image files with a key each, from a CSV or a folder: the queries or the gallery of an evaluation.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{
    file::read_file,
    folder::{entries, left_out, summary},
    table::{Columns, Table},
};
use kith_eval::EvaluationSet;

/// Image files and their keys. Images with the same key belong together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ImageList {
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Lines of a CSV that name no image.
    pub(crate) problems: Vec<String>,
    /// Why files of a folder are left out.
    pub(crate) left_out: Vec<String>,
}

impl ImageList {
    /// A CSV with a column `path` and the column `key`, or a folder: there the key is the sub-folder's name, or, where images lie in it
    /// directly, the file's name without its extension.
    pub(crate) fn read(input: &Path, key: &str) -> anyhow::Result<Self> {
        let list = if input.is_dir() {
            Self::from_folder(input)?
        } else {
            Self::from_csv(input, key)?
        };
        let name = input.display();
        ensure!(
            list.problems.is_empty(),
            "{name}: {}",
            summary(&list.problems)
        );
        ensure!(
            !list.files.is_empty(),
            "{name} names no image; left out: {}",
            summary(&list.left_out)
        );
        Ok(list)
    }

    fn from_csv(path: &Path, key: &str) -> anyhow::Result<Self> {
        let columns = Columns {
            required: &["path", key],
            optional: &[],
            others: true,
        };
        let table = Table::read(path, &columns)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut list = Self::default();
        for row in table.rows {
            match <[Option<String>; 2]>::try_from(row.cells) {
                Ok([Some(file), Some(key)]) => list.files.push((folder.join(file), key)),
                _ => list
                    .problems
                    .push(format!("line {}: no path or no {key}", row.line)),
            }
        }
        list.problems.extend(table.problems);
        Ok(list)
    }

    fn from_folder(folder: &Path) -> anyhow::Result<Self> {
        let name = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let stem = |path: &Path| {
            path.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let mut list = Self::default();
        for entry in entries(folder)? {
            if entry.is_dir() {
                let key = name(&entry);
                for image in entries(&entry)? {
                    list.add(image, key.clone());
                }
            } else {
                let key = stem(&entry);
                list.add(entry, key);
            }
        }
        Ok(list)
    }

    fn add(&mut self, path: PathBuf, key: String) {
        match left_out(&path) {
            None => self.files.push((path, key)),
            Some(reason) => self.left_out.push(reason),
        }
    }
}

/// Reads all images. It is an error if no query has a match in the gallery.
pub(crate) fn evaluation_set(
    queries: &ImageList,
    gallery: &ImageList,
) -> anyhow::Result<EvaluationSet> {
    let mut labels = HashMap::new();
    let mut label = |key: &str| {
        let next = labels.len() as u64;
        *labels.entry(key.to_owned()).or_insert(next)
    };
    let mut set = EvaluationSet::default();
    set.anchor_labels
        .extend(queries.files.iter().map(|(_, key)| label(key)));
    set.positive_labels
        .extend(gallery.files.iter().map(|(_, key)| label(key)));
    ensure!(
        set.anchor_labels
            .iter()
            .any(|label| set.positive_labels.contains(label)),
        "no query has its key in the gallery: see --key"
    );
    let read = |list: &ImageList| -> anyhow::Result<Vec<bytes::Bytes>> {
        let read = |(path, _): &(PathBuf, String)| {
            let bytes =
                read_file(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Ok(bytes.into())
        };
        list.files.iter().map(read).collect()
    };
    set.anchors = read(queries)?;
    set.positives = read(gallery)?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    fn keys(list: &ImageList) -> Vec<&str> {
        list.files.iter().map(|(_, key)| key.as_str()).collect()
    }

    #[test]
    fn a_folder_names_images_by_sub_folder_or_else_by_file() {
        let folder = tree(&[
            "cup/1.png",
            "cup/2.jpg",
            "cup/note.txt",
            "hat.png",
            "readme.md",
        ]);
        let list = ImageList::read(folder.path(), "key").unwrap();
        assert_eq!(keys(&list), ["cup", "cup", "hat"]);
        assert_eq!(list.left_out.len(), 2);
        assert!(list.left_out[0].contains("note.txt"), "{:?}", list.left_out);
    }

    #[test]
    fn a_csv_names_images_by_the_column_that_is_asked_for() {
        let folder = tree(&[]);
        let path = folder.path().join("list.csv");
        fs::write(&path, "sku,path,key\n7,a.png,x\n8,b.png,y\n").unwrap();
        let list = ImageList::read(&path, "sku").unwrap();
        assert_eq!(keys(&list), ["7", "8"]);
        assert_eq!(list.files[0].0, folder.path().join("a.png"));
        let error = ImageList::read(&path, "label").unwrap_err().to_string();
        assert!(error.contains("not a list that can be read"), "{error}");
        for (text, reason) in [
            ("path,key\na.png\n", "line 2: 1 cells under 2"),
            ("path,key\na.png,\n", "line 2: no path or no key"),
            (
                "path,path,key\na.png,b.png,x\n",
                "\"path\" is there 2 times",
            ),
            ("path,label\na.png,x\n", "no column \"key\""),
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", ImageList::read(&path, "key").unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn equal_keys_get_equal_labels_across_the_two_sides() {
        let folder = tree(&[
            "q/cup.png",
            "q/hat.png",
            "g/hat/1.png",
            "g/hat/2.png",
            "g/pen/1.png",
        ]);
        let list = |name: &str| ImageList::read(&folder.path().join(name), "key").unwrap();
        let set = evaluation_set(&list("q"), &list("g")).unwrap();
        assert_eq!(set.anchor_labels, [0, 1]);
        assert_eq!(set.positive_labels, [1, 1, 2]);
        assert_eq!(&set.positives[0][..], b"g/hat/1.png");
        assert!(evaluation_set(&list("q"), &list("g/pen")).is_err());
    }
}

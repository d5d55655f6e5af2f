//! Image files with a key each, read from a CSV or found in a folder: one side of a retrieval question.
//! Must never know: what is in an image.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::pair_list::{entries, is_image};
use crate::checkpoint::EvaluationSet;

/// Files and what they show: images with the same key belong together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ImageList {
    pub(crate) files: Vec<(PathBuf, String)>,
}

impl ImageList {
    /// A CSV with a column `path` and the column `key`, or a folder: there the key is the sub-folder's name, or, where images lie in it
    /// directly, the file's name without its extension.
    pub(crate) fn read(input: &Path, key: &str) -> anyhow::Result<Self> {
        let list = match input.is_dir() {
            true => Self::of_folder(input)?,
            false => Self::of_csv(input, key)?,
        };
        ensure!(!list.files.is_empty(), "{} names no image", input.display());
        Ok(list)
    }

    fn of_csv(path: &Path, key: &str) -> anyhow::Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("{name} cannot be opened"))?;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(file);
        let header = reader.headers()?;
        let column = |wanted: &str| {
            let found = header.iter().position(|title| title == wanted);
            found.with_context(|| format!("{name} has no column {wanted:?}"))
        };
        let (path_column, key_column) = (column("path")?, column(key)?);
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut list = Self::default();
        for record in reader.records() {
            let record = record.with_context(|| format!("{name} cannot be read"))?;
            list.files.push((
                folder.join(&record[path_column]),
                record[key_column].to_owned(),
            ));
        }
        Ok(list)
    }

    fn of_folder(folder: &Path) -> anyhow::Result<Self> {
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
            if is_image(&entry) {
                let key = stem(&entry);
                list.files.push((entry, key));
            } else if entry.is_dir() {
                let key = name(&entry);
                let images = entries(&entry)?.into_iter().filter(|path| is_image(path));
                list.files.extend(images.map(|image| (image, key.clone())));
            }
        }
        Ok(list)
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
                fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
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
        assert!(error.contains("no column \"label\""), "{error}");
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

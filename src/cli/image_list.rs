//! Image files with a key each, from a CSV or a folder: the queries or the gallery of an evaluation.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{
    file::read_image,
    folder::{entries, left_out, summary},
    table::{Columns, Table},
};
use kith_eval::{ClassificationSet, EvaluationSet, LabelledImages};
use kith_seed::mix;

/// Images of a class, of which one is a test image.
const TEST_SHARE: usize = 5;
/// Domain of the seed that chooses test images.
const TEST_SEED: u64 = 0x7e57;

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

    /// The content of all files.
    fn bytes(&self) -> anyhow::Result<Vec<bytes::Bytes>> {
        let read = |(path, _): &(PathBuf, String)| {
            let bytes = read_image(path);
            let bytes = bytes.with_context(|| format!("{} cannot be read", path.display()))?;
            Ok(bytes.into())
        };
        self.files.iter().map(read).collect()
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
    let mut numbers = Numbers::default();
    let anchor_labels = numbers.of(queries);
    let positive_labels = numbers.of(gallery);
    ensure!(
        anchor_labels
            .iter()
            .any(|label| positive_labels.contains(label)),
        "no query has its key in the gallery: see --key"
    );
    Ok(EvaluationSet {
        anchors: queries.bytes()?,
        positives: gallery.bytes()?,
        anchor_labels,
        positive_labels,
        questions: String::new(),
    })
}

/// Reads all images, whose keys are their classes. Without `test` one image in five of each class is taken from `train`, by `seed`.
///
/// # Errors
/// An image cannot be read, there are fewer than two classes, or a test image has a class that no other image has.
pub(crate) fn classification_set(
    train: ImageList,
    test: Option<ImageList>,
    seed: u64,
) -> anyhow::Result<ClassificationSet> {
    let (train, test) = match test {
        Some(test) => (train, test),
        None => split(train, seed),
    };
    let mut numbers = Numbers::default();
    let classes = numbers.of(&train);
    ensure!(
        numbers.0.len() > 1,
        "there is one class only: its images have the same key, which --key chooses"
    );
    ensure!(
        !test.files.is_empty(),
        "no class has two images, one to learn from and one to test on"
    );
    let unknown = test.files.iter();
    let unknown = unknown.filter(|(_, key)| !numbers.0.contains_key(key));
    let unknown: Vec<String> = unknown
        .map(|(path, key)| format!("{} ({key})", path.display()))
        .collect();
    ensure!(
        unknown.is_empty(),
        "no image to learn from has the class of these test images: {}",
        summary(&unknown)
    );
    let (test_classes, images) = (numbers.of(&test), train.bytes()?);
    Ok(ClassificationSet {
        train: LabelledImages { images, classes },
        test: LabelledImages {
            images: test.bytes()?,
            classes: test_classes,
        },
    })
}

/// One image in [`TEST_SHARE`] of each class, at least one of a class that has two, is a test image. A hash chooses them.
fn split(list: ImageList, seed: u64) -> (ImageList, ImageList) {
    let mut numbers = Numbers::default();
    let mut order: Vec<(u64, u64, usize)> = numbers
        .of(&list)
        .into_iter()
        .zip(0..)
        .map(|(class, index)| (class, mix(&[seed, TEST_SEED, index as u64]), index))
        .collect();
    order.sort_unstable();
    let mut chosen = vec![false; list.files.len()];
    for class in order.chunk_by(|one, other| one.0 == other.0) {
        let wanted = (class.len() / TEST_SHARE).max(usize::from(class.len() > 1));
        let tests = class.iter().take(wanted);
        tests.for_each(|(_, _, index)| chosen[*index] = true);
    }
    let (mut train, mut test) = (ImageList::default(), ImageList::default());
    for (file, is_test) in list.files.into_iter().zip(chosen) {
        let part = if is_test { &mut test } else { &mut train };
        part.files.push(file);
    }
    (train, test)
}

/// A number for each key, in the order in which they come.
#[derive(Default)]
struct Numbers(HashMap<String, u64>);

impl Numbers {
    /// The numbers of the list's keys.
    fn of(&mut self, list: &ImageList) -> Vec<u64> {
        let number = |(_, key): &(PathBuf, String)| {
            let next = self.0.len() as u64;
            *self.0.entry(key.clone()).or_insert(next)
        };
        list.files.iter().map(number).collect()
    }
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

    fn classes(sizes: &[usize]) -> ImageList {
        let files = sizes.iter().enumerate().flat_map(|(class, size)| {
            let file = move |image| (PathBuf::from(format!("{class}/{image}")), class.to_string());
            (0..*size).map(file)
        });
        ImageList {
            files: files.collect(),
            ..ImageList::default()
        }
    }

    #[test]
    fn a_fifth_of_each_class_is_tested_on_by_the_seed() {
        let (train, test) = split(classes(&[10, 5, 3, 1]), 7);
        let tested = |key: &str| keys(&test).iter().filter(|found| **found == key).count();
        assert_eq!(["0", "1", "2", "3"].map(tested), [2, 1, 1, 0]);
        assert_eq!(train.files.len() + test.files.len(), 19);
        assert!(test.files.iter().all(|file| !train.files.contains(file)));
        assert_eq!(split(classes(&[10, 5, 3, 1]), 7).1, test);
        assert!((0..9).any(|seed| split(classes(&[10, 5, 3, 1]), seed).1 != test));
    }

    #[test]
    fn classes_have_the_same_numbers_on_both_sides_or_are_refused() {
        let folder = tree(&["a/hat/1.png", "a/cup/1.png", "b/cup/2.png", "c/pen/1.png"]);
        let list = |name: &str| ImageList::read(&folder.path().join(name), "key").unwrap();
        let set = classification_set(list("a"), Some(list("b")), 0).unwrap();
        assert_eq!((set.train.classes, set.test.classes), (vec![0, 1], vec![0]));
        let refused = |train: &str, test| {
            let set = classification_set(list(train), test, 0);
            set.unwrap_err().to_string()
        };
        let unknown = refused("a", Some(list("c")));
        assert!(unknown.contains("1.png (pen)"), "{unknown}");
        assert!(refused("c", None).contains("one class only"));
        assert!(refused("a", None).contains("no class has two images"));
    }
}

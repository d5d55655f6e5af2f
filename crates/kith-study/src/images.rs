//! Finds the images of a study in folders, a manifest or STL-10's files, and decodes them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{StudyError, stl10};
use kith_pixels::{DecodedImage, EXTENSIONS, Limits};
use kith_seed::mix;

/// Where classes have no test part, every fifth image becomes a test image.
const TEST_EVERY: usize = 5;

/// The location of an image, and its class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    source: Source,
    pub(super) label: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    File(PathBuf),
    /// An STL-10 file and an index in it.
    Record(PathBuf, usize),
}

/// The images of a folder. Images of folders and manifests are in an order unrelated to their classes, so that the first n are a sample;
/// STL-10's keep their own order.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// Images without a class.
    unlabelled: Vec<Item>,
    pub(super) train: Vec<Item>,
    pub(super) test: Vec<Item>,
}

impl Images {
    /// Looks in `folder` for STL-10's files, then for a `manifest.csv`, then for `train/` and `test/`, then for one sub-folder for each
    /// class. The images of a flat folder have no class.
    pub(super) fn find(folder: &Path) -> Result<Self, StudyError> {
        let images = if ["unlabeled_X.bin", "train_X.bin"]
            .iter()
            .any(|name| folder.join(name).exists())
        {
            Self::from_stl10(folder)?
        } else if folder.join("manifest.csv").exists() {
            Self::from_manifest(&folder.join("manifest.csv"))?
        } else {
            Self::from_folders(folder)?
        };
        if images.for_training().is_empty() {
            return Err(StudyError::config(format!(
                "{} holds no image: give a folder with one sub-folder of images for each class, or STL-10's binary files",
                folder.display()
            )));
        }
        Ok(images)
    }

    /// The images that are trained on; their classes are not used.
    pub(super) fn for_training(&self) -> &[Item] {
        if self.unlabelled.is_empty() {
            &self.train
        } else {
            &self.unlabelled
        }
    }

    fn from_stl10(folder: &Path) -> Result<Self, StudyError> {
        let items = |name: &str, labels: Option<&str>| {
            let path = folder.join(name);
            if !path.exists() {
                return Ok(Vec::new());
            }
            let count = stl10::count(&path)?;
            let labels = match labels {
                Some(name) => stl10::labels(&folder.join(name))?,
                None => vec![0; count],
            };
            if labels.len() != count {
                let (file, found) = (path.display(), labels.len());
                return Err(StudyError::config(format!(
                    "{file} has {count} images, its labels are {found}"
                )));
            }
            let item = |(index, label)| Item {
                source: Source::Record(path.clone(), index),
                label,
            };
            Ok(labels.into_iter().enumerate().map(item).collect())
        };
        Ok(Self {
            unlabelled: items("unlabeled_X.bin", None)?,
            train: items("train_X.bin", Some("train_y.bin"))?,
            test: items("test_X.bin", Some("test_y.bin"))?,
        })
    }

    /// The columns are `path` (relative to the manifest's folder), `label` and optionally `split` (`train` or `test`).
    fn from_manifest(path: &Path) -> Result<Self, StudyError> {
        let failed = |error: csv::Error| StudyError::io(path, error.into());
        let mut reader = csv::Reader::from_path(path).map_err(failed)?;
        check_columns(path, reader.headers().map_err(failed)?)?;
        let mut found = Found::default();
        for row in reader.deserialize() {
            let row: BTreeMap<String, String> = row.map_err(failed)?;
            let cell = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
            let file = path.parent().unwrap_or(Path::new("")).join(cell("path"));
            let part = match cell("split") {
                "" => &mut found.whole,
                "test" => &mut found.test,
                "train" => &mut found.train,
                other => {
                    return Err(StudyError::config(format!(
                        "{}: the split of an image is train or test, not {other:?}",
                        path.display()
                    )));
                }
            };
            part.push((file, cell("label").to_owned()));
        }
        Ok(found.into_images())
    }

    fn from_folders(folder: &Path) -> Result<Self, StudyError> {
        let mut found = Found::default();
        if folder.join("train").is_dir() {
            found.train = classes(&folder.join("train"))?;
            if folder.join("test").is_dir() {
                found.test = classes(&folder.join("test"))?;
            }
        } else {
            found.whole = classes(folder)?;
        }
        let mut images = found.into_images();
        if images.for_training().is_empty() {
            let flat = entries(folder)?.into_iter().filter(|path| is_image(path));
            images.unlabelled = shuffled(flat.map(|path| (path, 0)).collect());
        }
        Ok(images)
    }
}

/// Refuses unknown columns: a misspelt one would silently change what is measured.
fn check_columns(path: &Path, header: &csv::StringRecord) -> Result<(), StudyError> {
    let count = |name: &str| header.iter().filter(|title| *title == name).count();
    let known = header
        .iter()
        .all(|title| ["path", "label", "split"].contains(&title));
    if known && count("path") == 1 && count("label") == 1 && count("split") <= 1 {
        return Ok(());
    }
    Err(StudyError::config(format!(
        "{} needs the columns path and label, optionally split, and no others; it has {}",
        path.display(),
        header.iter().take(12).collect::<Vec<_>>().join(", ")
    )))
}

/// Files with the names of their classes.
#[derive(Default)]
struct Found {
    train: Vec<(PathBuf, String)>,
    test: Vec<(PathBuf, String)>,
    /// Files of neither part.
    whole: Vec<(PathBuf, String)>,
}

impl Found {
    fn into_images(self) -> Images {
        let all = || self.train.iter().chain(&self.test).chain(&self.whole);
        let mut names: Vec<&String> = all().map(|(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        let items = |files: &[(PathBuf, String)]| {
            let number = |name| names.binary_search(&name).unwrap_or_default();
            let numbered = files
                .iter()
                .map(|(path, name)| (path.clone(), number(name)));
            shuffled(numbered.collect())
        };
        let (mut train, mut test) = (items(&self.train), items(&self.test));
        for class in 0..names.len() {
            let whole = items(&self.whole)
                .into_iter()
                .filter(|item| item.label == class);
            for (index, item) in whole.enumerate() {
                if index > 0 && index % TEST_EVERY == 0 {
                    test.push(item);
                } else {
                    train.push(item);
                }
            }
        }
        if !self.whole.is_empty() {
            sort_by_hash(&mut train);
        }
        Images {
            unlabelled: Vec::new(),
            train,
            test,
        }
    }
}

/// Decodes `items`, in order. Runs in rayon's current pool.
///
/// # Errors
/// If an image cannot be read or decoded.
pub(super) fn load(items: &[Item], limits: &Limits) -> Result<Vec<DecodedImage>, StudyError> {
    let one = |item: &Item| match &item.source {
        Source::Record(path, index) => stl10::image(path, *index),
        Source::File(path) => {
            let bytes = fs::read(path).map_err(|error| StudyError::io(path, error))?;
            kith_pixels::decode(&bytes, limits)
                .map_err(|error| StudyError::config(format!("{}: {error}", path.display())))
        }
    };
    items.par_iter().map(one).collect()
}

/// Shuffles the files. The order depends on nothing but the positions in the sorted list.
fn shuffled(mut files: Vec<(PathBuf, usize)>) -> Vec<Item> {
    files.sort_unstable();
    let mut items: Vec<Item> = files
        .into_iter()
        .map(|(path, label)| Item {
            source: Source::File(path),
            label,
        })
        .collect();
    sort_by_hash(&mut items);
    items
}

fn sort_by_hash(items: &mut Vec<Item>) {
    let mut keyed: Vec<(u64, Item)> = items
        .drain(..)
        .enumerate()
        .map(|(index, item)| (mix(&[index as u64]), item))
        .collect();
    keyed.sort_unstable_by_key(|(key, _)| *key);
    items.extend(keyed.into_iter().map(|(_, item)| item));
}

/// The images of each sub-folder, with its name.
fn classes(folder: &Path) -> Result<Vec<(PathBuf, String)>, StudyError> {
    let mut found = Vec::new();
    for sub in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let name = sub.file_name().unwrap_or_default().to_string_lossy();
        let images = entries(&sub)?.into_iter().filter(|path| is_image(path));
        found.extend(images.map(|image| (image, name.clone().into_owned())));
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let failed = |error| StudyError::io(folder, error);
    fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    EXTENSIONS.contains(&extension.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        folder
    }

    fn labels(items: &[Item]) -> Vec<usize> {
        let mut labels: Vec<usize> = items.iter().map(|item| item.label).collect();
        labels.sort_unstable();
        labels
    }

    #[test]
    fn train_and_test_folders_share_their_classes() {
        let folder = tree(&[
            "train/b/1.png",
            "train/a/1.png",
            "train/a/2.jpg",
            "test/b/9.png",
            "train/a/x.txt",
        ]);
        let images = Images::find(folder.path()).unwrap();
        assert_eq!(labels(&images.train), [0, 0, 1]);
        assert_eq!(labels(&images.test), [1]);
        assert_eq!(images.for_training(), images.train);
    }

    #[test]
    fn of_plain_classes_every_fifth_image_is_a_test() {
        let names: Vec<String> = (0..20)
            .map(|n| format!("{}/{n:02}.png", ["a", "b"][n % 2]))
            .collect();
        let folder = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let images = Images::find(folder.path()).unwrap();
        assert_eq!(labels(&images.test), [0, 1]);
        assert_eq!(images.train.len(), 18);
        // A sample of the first ones holds both classes.
        assert!(labels(&images.train[..8]).contains(&1) && labels(&images.train[..8]).contains(&0));
    }

    #[test]
    fn a_flat_folder_has_no_classes_and_an_empty_one_is_refused() {
        let folder = tree(&["1.png", "2.png", "note.md"]);
        let images = Images::find(folder.path()).unwrap();
        assert_eq!((images.for_training().len(), images.train.len()), (2, 0));
        assert!(Images::find(tree(&[]).path()).is_err());
    }

    #[test]
    fn a_manifest_names_class_and_part() {
        let folder = tree(&[]);
        let manifest = "path,label,split\nx.png,cat,train\ny.png,dog,train\nz.png,dog,test\n";
        fs::write(folder.path().join("manifest.csv"), manifest).unwrap();
        let images = Images::find(folder.path()).unwrap();
        assert_eq!(
            (labels(&images.train), labels(&images.test)),
            (vec![0, 1], vec![1])
        );
    }

    #[test]
    fn stl10s_files_are_read_column_by_column() {
        let folder = tree(&[]);
        // Byte = plane + 3 · column + row, so that a swap of any two shows.
        let image = |shift: usize| -> Vec<u8> {
            let split = |n: usize| (n / 9216, n % 9216 / 96, n % 96);
            (0..3 * 9216)
                .map(split)
                .map(|(plane, column, row)| (shift + plane + 3 * column + row) as u8)
                .collect()
        };
        fs::write(
            folder.path().join("train_X.bin"),
            [image(0), image(7)].concat(),
        )
        .unwrap();
        fs::write(folder.path().join("train_y.bin"), [1, 10]).unwrap();
        fs::write(folder.path().join("unlabeled_X.bin"), image(9)).unwrap();
        let images = Images::find(folder.path()).unwrap();
        assert_eq!((images.train[1].label, images.test.len()), (9, 0));
        let limits = Limits {
            max_bytes: 0,
            max_pixels: 0,
            decode_memory_mb: 1024,
        };
        let decoded = load(&images.train, &limits).unwrap();
        let at = |row: usize, column: usize| 3 * (row * 96 + column);
        assert_eq!(decoded[1].rgb[at(5, 20)..][..3], [72, 73, 74]);
        assert_eq!(load(images.for_training(), &limits).unwrap()[0].rgb[0], 9);
        fs::write(folder.path().join("train_X.bin"), [0; 100]).unwrap();
        assert!(
            Images::find(folder.path())
                .unwrap_err()
                .to_string()
                .contains("is it whole")
        );
    }
}

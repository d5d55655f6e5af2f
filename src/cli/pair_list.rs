//! Pairs of image files, from a CSV or a folder with sub-folders.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::ensure;

use super::{
    folder::{entries, left_out, summary},
    table::{Columns, Table},
};
use crate::types::Sha256;
use kith_mcmc::PairWeight;

const COLUMNS: Columns<'static> = Columns {
    required: &["anchor"],
    optional: &["positive", "group", "weight"],
    others: false,
};

/// The files of one pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairFiles {
    /// Where it was read, for messages: `line 7`, or the sub-folder.
    pub source: String,
    /// Path of the anchor's file.
    pub anchor: PathBuf,
    /// Path of the positive's file. `None`: two views of the anchor are the pair.
    pub positive: Option<PathBuf>,
    /// Images of one group are never each other's negatives.
    pub group: Option<String>,
    /// How much it counts in training; `None`: 1.
    pub weight: Option<PairWeight>,
}

/// The pairs of an input, and its problems.
#[derive(Debug, Default)]
pub struct PairList {
    /// The pairs, in the order of the input.
    pub pairs: Vec<PairFiles>,
    /// Lines of a CSV that are no pair, each with its number and the reason.
    pub problems: Vec<String>,
    /// Why files of a folder are left out.
    pub left_out: Vec<String>,
}

impl PairFiles {
    /// A pair from the cells of a line in the order of [`COLUMNS`]; files lie in `folder`.
    fn from_cells(source: &str, folder: &Path, cells: Vec<Option<String>>) -> Result<Self, String> {
        let Ok([Some(anchor), positive, group, weight]) = <[_; 4]>::try_from(cells) else {
            return Err("no anchor".to_owned());
        };
        Ok(Self {
            source: source.to_owned(),
            anchor: folder.join(anchor),
            positive: positive.map(|positive| folder.join(positive)),
            group,
            weight: weight.as_deref().map(weight_of_cell).transpose()?,
        })
    }
}

fn weight_of_cell(cell: &str) -> Result<PairWeight, String> {
    cell.parse().ok().and_then(PairWeight::new).ok_or_else(|| {
        let (min, max) = (PairWeight::MIN.value(), PairWeight::MAX.value());
        format!("the weight {cell:?} is not a number from {min} to {max}: give one, or leave the cell empty for 1")
    })
}

impl PairList {
    /// A CSV file, or a folder with one sub-folder for each thing and at most `per_thing` pairs of each.
    ///
    /// # Errors
    /// The input cannot be read, has other columns, or holds no pair.
    pub fn read(input: &Path, per_thing: usize) -> anyhow::Result<Self> {
        let list = if input.is_dir() {
            Self::from_folder(input, per_thing)?
        } else {
            Self::from_csv(input)?
        };
        let name = input.display();
        let found = list.pairs.len() + list.problems.len();
        ensure!(
            found > 0,
            "{name} holds no pair: give a CSV with an anchor column, or a folder with one sub-folder of images for each thing; left out: {}",
            summary(&list.left_out)
        );
        Ok(list)
    }

    fn from_csv(path: &Path) -> anyhow::Result<Self> {
        let table = Table::read(path, &COLUMNS)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut list = Self {
            problems: table.problems,
            ..Self::default()
        };
        for row in table.rows {
            let source = format!("line {}", row.line);
            match PairFiles::from_cells(&source, folder, row.cells) {
                Ok(pair) => list.pairs.push(pair),
                Err(problem) => list.problems.push(format!("{source}: {problem}")),
            }
        }
        Ok(list)
    }

    fn from_folder(folder: &Path, per_thing: usize) -> anyhow::Result<Self> {
        let mut list = Self::default();
        for thing in entries(folder)? {
            if thing.is_dir() {
                list.add_thing(&thing, per_thing)?;
            } else {
                list.left_out.push(format!(
                    "{}: a file beside the sub-folders belongs to no thing",
                    thing.display()
                ));
            }
        }
        Ok(list)
    }

    fn add_thing(&mut self, thing: &Path, per_thing: usize) -> anyhow::Result<()> {
        let name = thing.file_name().unwrap_or_default().to_string_lossy();
        let mut images = Vec::new();
        for path in entries(thing)? {
            match left_out(&path) {
                None => images.push(path),
                Some(reason) => self.left_out.push(reason),
            }
        }
        let pairs = combinations(images.len(), per_thing).into_iter();
        self.pairs.extend(pairs.map(|(anchor, positive)| PairFiles {
            source: name.clone().into_owned(),
            anchor: images[anchor].clone(),
            positive: positive.map(|positive| images[positive].clone()),
            group: Some(name.clone().into_owned()),
            weight: None,
        }));
        Ok(())
    }

    /// Indices of the pairs in the order of upload: first those with images that no earlier pair has, so that later ones can use the ids.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut uses: HashMap<&Path, usize> = HashMap::new();
        let mut ranks = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            let files = [Some(&pair.anchor), pair.positive.as_ref()];
            let counts = files.into_iter().flatten().map(|file| {
                let count = uses.entry(file).or_default();
                *count += 1;
                *count
            });
            ranks.push(counts.max().unwrap_or_default());
        }
        let mut order: Vec<_> = (0..ranks.len()).collect();
        order.sort_by_key(|&index| ranks[index]);
        order
    }

    /// Hash of the pairs and of the server's address.
    pub(crate) fn fingerprint(&self, server: &str) -> Sha256 {
        let pairs = self.pairs.iter();
        let lines = pairs.map(|pair| {
            let label = (&pair.group, pair.weight);
            format!("{:?}\n", (&pair.anchor, &pair.positive, label))
        });
        Sha256::digest(format!("{server}\n{}", lines.collect::<String>()).as_bytes())
    }
}

/// At most `max` of the pairs of `count` images, neighbours first, so that each image has a partner before any has two. A single image is
/// a pair by itself.
fn combinations(count: usize, max: usize) -> Vec<(usize, Option<usize>)> {
    if count == 1 {
        return vec![(0, None)];
    }
    let distances = (1..count).flat_map(|apart| {
        let at = |odd: usize| (0..count - apart).filter(move |i| i / apart % 2 == odd);
        at(0).chain(at(1)).map(move |i| (i, Some(i + apart)))
    });
    distances.take(max).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_two_images_are_one_pair_and_each_has_a_partner_before_any_has_two() {
        let all = combinations(5, 100);
        let mut sorted: Vec<_> = all.iter().map(|(i, j)| (*i, j.unwrap())).collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((all.len(), sorted.len()), (10, 10));
        assert_eq!(
            combinations(6, 3),
            [(0, Some(1)), (2, Some(3)), (4, Some(5))]
        );
        assert_eq!(combinations(1, 3), [(0, None)]);
        assert_eq!(combinations(0, 3), []);
    }

    #[test]
    fn a_csv_is_read_by_its_header_and_a_bad_line_does_not_stop_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.csv");
        fs::write(
            &path,
            "positive,anchor,group,weight\nb.png,\"a, 1.png\",g,2.5\n,c.png,,\nb.png,,,\nx,y\n,c.png,,0\n",
        )
        .unwrap();
        let list = PairList::read(&path, 10).unwrap();
        let pair =
            |line: &str, anchor: &str, positive: Option<&str>, group: Option<&str>| PairFiles {
                source: line.into(),
                anchor: folder.path().join(anchor),
                positive: positive.map(|name| folder.path().join(name)),
                group: group.map(str::to_owned),
                weight: None,
            };
        let expected = [
            PairFiles {
                weight: PairWeight::new(2.5),
                ..pair("line 2", "a, 1.png", Some("b.png"), Some("g"))
            },
            pair("line 3", "c.png", None, None),
        ];
        assert_eq!(list.pairs, expected);
        assert_eq!(list.problems.len(), 3, "{:?}", list.problems);
        let weight = list
            .problems
            .iter()
            .find(|problem| problem.contains("line 6"));
        assert!(weight.unwrap().contains("0.001 to 1000"), "{weight:?}");
        assert!(list.problems.contains(&"line 4: no anchor".to_owned()));
    }

    #[test]
    fn a_folder_gives_pairs_within_its_sub_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "cup/a.png",
            "cup/b.JPG",
            "cup/c.txt",
            "hat/a.png",
            ".git/a.png",
            "loose.png",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let list = PairList::read(folder.path(), 10).unwrap();
        let groups: Vec<_> = list
            .pairs
            .iter()
            .map(|pair| pair.group.as_deref().unwrap())
            .collect();
        assert_eq!(groups, ["cup", "hat"]);
        assert_eq!(
            list.pairs[0].positive,
            Some(folder.path().join("cup/b.JPG"))
        );
        assert_eq!(list.pairs[1].positive, None);
        // The text file and the loose image; what is hidden is not spoken of.
        assert_eq!(list.left_out.len(), 2, "{:?}", list.left_out);
    }

    #[test]
    fn an_input_without_pairs_says_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let error = PairList::read(folder.path(), 10).unwrap_err().to_string();
        assert!(error.contains("sub-folder"), "{error}");
    }

    #[test]
    fn pairs_with_new_images_come_first() {
        let pair = |anchor: &str, positive: &str| PairFiles {
            source: String::new(),
            anchor: anchor.into(),
            positive: Some(positive.into()),
            group: None,
            weight: None,
        };
        let pairs = vec![
            pair("a", "b"),
            pair("a", "c"),
            pair("b", "c"),
            pair("d", "e"),
        ];
        let list = PairList {
            pairs,
            ..PairList::default()
        };
        assert_eq!(list.order(), [0, 3, 1, 2]);
    }
}

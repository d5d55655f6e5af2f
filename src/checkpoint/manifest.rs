//! `manifest.json`, which lists the parts of a complete checkpoint.

use serde::{Deserialize, Serialize};

use super::files::{FORMAT, FileError, MODEL, PARTS};
use crate::types::{CheckpointId, Sha256};
use kith_nn::EncoderConfig;
use kith_pixels::Preprocessing;

/// Largest step or size that a checkpoint's row can hold.
const MAX_NUMBER: u64 = i64::MAX as u64;

/// One part in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Part {
    /// File name.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hexadecimal SHA-256.
    pub sha256: String,
}

impl Part {
    /// Describes `bytes`.
    pub(super) fn new(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: Sha256::digest(bytes).to_string(),
        }
    }

    /// Checks that `bytes` are this part.
    ///
    /// # Errors
    /// [`FileError::Length`] or [`FileError::Hash`] if they are not.
    pub fn check(&self, bytes: &[u8]) -> Result<(), FileError> {
        if bytes.len() as u64 != self.bytes {
            return Err(FileError::Length {
                name: self.name.clone(),
                found: bytes.len(),
                wanted: self.bytes,
            });
        }
        if Sha256::digest(bytes).to_string() != self.sha256 {
            return Err(FileError::Hash(self.name.clone()));
        }
        Ok(())
    }
}

/// Where the weights that training started from came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Origin {
    /// The kind of weights.
    pub kind: OriginKind,
    /// Name of the file that they were read from, without its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Hexadecimal SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the embedding is of the file's features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Keys of the file that were left out, such as a classifier's. Where there are many, the last text counts the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Step at which training went on from them: an import into a data folder with checkpoints counts on.
    #[serde(default)]
    pub step: u64,
}

impl Origin {
    /// Whether weights of this origin did not begin as random ones. Those of an unknown origin count as random.
    pub fn is_pretrained(origin: Option<&Self>) -> bool {
        origin.is_some_and(|origin| origin.kind != OriginKind::Fresh)
    }
}

/// A kind of first weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// Random ones.
    Fresh,
    /// Those that come with the program.
    Starter,
    /// Those of a file.
    File,
}

/// Twelve hexadecimal digits that change with what is done to an image: the first of the SHA-256 of its text. Embeddings of two hashes do not
/// compare.
pub fn preprocessing_hash(preprocessing: &Preprocessing) -> String {
    let text = preprocessing.to_string();
    Sha256::digest(text.as_bytes()).to_string()[..12].to_owned()
}

/// `manifest.json`: a checkpoint exists when this does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// All other parts.
    pub parts: Vec<Part>,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// The caller's note.
    pub note: Option<String>,
    /// The checkpoint it was trained from.
    pub parent: Option<CheckpointId>,
    /// Its place in the order in which checkpoints were taken, should the database be lost.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// Largest magnitude of a value in the embeddings of the images that its projection was fitted to, or else of the last training steps, for
    /// embeddings in 8 bits. `None`: it is not fitted, and no step was made since the start.
    #[serde(default)]
    pub range: Option<f32>,
    /// What is done to an image before the network sees it. `None`: the checkpoint is older than this field, and its side is the encoder's.
    #[serde(default)]
    pub preprocessing: Option<Preprocessing>,
    /// See [`preprocessing_hash`]. `None`: the checkpoint is older than this field.
    #[serde(default)]
    pub preprocessing_hash: Option<String>,
    /// Where the first weights came from, of which these were trained. `None`: nobody knows any more.
    #[serde(default)]
    pub origin: Option<Origin>,
}

impl Manifest {
    /// What is done to an image before the network sees it.
    pub fn preprocessing(&self) -> Preprocessing {
        let known = self.preprocessing.clone();
        known.unwrap_or_else(|| Preprocessing::new(self.encoder.side))
    }

    /// Checks that this program prepares images as the checkpoint wants them.
    ///
    /// # Errors
    /// [`FileError::Preprocessing`] names both.
    pub fn check_preprocessing(&self) -> Result<(), FileError> {
        let (wanted, known) = (self.preprocessing(), Preprocessing::new(self.encoder.side));
        if wanted == known {
            return Ok(());
        }
        let text = |value: &Preprocessing| serde_json::to_string(value);
        Err(FileError::Preprocessing {
            wanted: text(&wanted)?,
            known: text(&known)?,
        })
    }

    /// Refuses numbers that a row cannot hold, and a range by which no value can be scaled: JSON's 1e39 is an infinite `f32`.
    fn check_numbers(&self) -> Result<(), FileError> {
        let refuse = |what, number: String| Err(FileError::Number { what, number });
        for (what, number) in [("step", self.step), ("size", self.bytes())] {
            if number > MAX_NUMBER {
                return refuse(what, number.to_string());
            }
        }
        match self.range {
            Some(range) if !range.is_finite() || range < 0.0 => refuse("range", range.to_string()),
            _ => Ok(()),
        }
    }

    /// Sum of the parts' sizes. A damaged manifest may state any: then the largest number.
    pub fn bytes(&self) -> u64 {
        let sizes = self.parts.iter().map(|part| part.bytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// Whether both checkpoints serve the same weights, bit for bit.
    pub(crate) fn has_weights_of(&self, other: &Self) -> bool {
        let weights = |manifest: &Self| Some(manifest.part(MODEL)?.sha256.clone());
        weights(self).is_some() && weights(self) == weights(other)
    }

    /// Reads a manifest that should be checkpoint `id`'s.
    pub(super) fn read(id: CheckpointId, bytes: &[u8]) -> Result<Self, FileError> {
        let manifest = Self::parse(bytes)?;
        if manifest.id == id {
            Ok(manifest)
        } else {
            Err(FileError::OtherCheckpoint(manifest.id))
        }
    }

    /// Reads any checkpoint's manifest.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(FileError::Manifest)?;
        if manifest.version != FORMAT {
            return Err(FileError::Version(manifest.version));
        }
        manifest.check_numbers()?;
        match PARTS.iter().find(|name| manifest.part(name).is_none()) {
            Some(missing) => Err(FileError::Unnamed(missing)),
            None => Ok(manifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::{MODEL, TRAINER};
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            version: FORMAT,
            id: CheckpointId::now(),
            step: 12,
            encoder: EncoderConfig {
                width: 8,
                side: 32,
                dim: 16,
                towers: 1,
            },
            parts: PARTS.map(|name| Part::new(name, name.as_bytes())).to_vec(),
            created_at: jiff::Timestamp::now(),
            note: None,
            parent: None,
            range: None,
            sequence: Some(1),
            preprocessing: Some(Preprocessing::new(32)),
            preprocessing_hash: Some(preprocessing_hash(&Preprocessing::new(32))),
            origin: None,
        }
    }

    fn reread(manifest: &Manifest, id: CheckpointId) -> Result<Manifest, FileError> {
        Manifest::read(id, &serde_json::to_vec(manifest).unwrap())
    }

    #[test]
    fn a_manifest_is_read_only_under_its_own_id_version_and_with_all_parts() {
        let good = manifest();
        assert_eq!(reread(&good, good.id).unwrap(), good);
        assert!(reread(&good, CheckpointId::now()).is_err());
        let newer = Manifest {
            version: FORMAT + 1,
            ..good.clone()
        };
        assert!(reread(&newer, good.id).is_err());
        let mut short = good.clone();
        short.parts.pop();
        let refused = reread(&short, good.id).unwrap_err().to_string();
        assert!(refused.contains(TRAINER), "{refused}");
    }

    #[test]
    fn a_manifest_from_before_preprocessing_origin_and_range_opens() {
        let good = manifest();
        let mut json = serde_json::to_value(&good).unwrap();
        let fields = json.as_object_mut().unwrap();
        for added in ["preprocessing", "preprocessing_hash", "origin", "range"] {
            assert!(fields.remove(added).is_some(), "{added}");
        }
        let old = Manifest::read(good.id, json.to_string().as_bytes()).unwrap();
        assert_eq!((&old.origin, old.range), (&None, None));
        old.check_preprocessing().unwrap();
        assert_eq!(old.preprocessing(), Preprocessing::new(32));
    }

    #[test]
    fn an_origin_without_a_step_began_at_step_0() {
        let origin: Origin = serde_json::from_str(r#"{"kind": "starter"}"#).unwrap();
        assert_eq!((origin.kind, origin.step), (OriginKind::Starter, 0));
    }

    #[test]
    fn a_step_and_sizes_that_no_row_can_hold_and_a_range_that_scales_nothing_are_refused() {
        let mut largest = manifest();
        (largest.step, largest.range) = (MAX_NUMBER, Some(0.0));
        largest.parts[0].bytes = MAX_NUMBER - (largest.bytes() - largest.parts[0].bytes);
        assert_eq!(reread(&largest, largest.id).unwrap(), largest);
        let changes: [fn(&mut Manifest); 4] = [
            |damaged| damaged.step += 1,
            |damaged| damaged.parts[0].bytes += 1,
            |damaged| damaged.parts[1].bytes = u64::MAX,
            |damaged| damaged.range = Some(-0.5),
        ];
        for change in changes {
            let mut damaged = largest.clone();
            change(&mut damaged);
            let refused = reread(&damaged, damaged.id).unwrap_err().to_string();
            assert!(refused.contains("which no checkpoint has"), "{refused}");
        }
        let endless = serde_json::to_string(&largest).unwrap();
        let endless = endless.replace("\"range\":0.0", "\"range\":1e39");
        assert!(endless.contains("1e39"));
        let refused = Manifest::parse(endless.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("range inf"), "{refused}");
    }

    #[test]
    fn images_that_this_program_would_prepare_otherwise_are_refused() {
        let good = manifest();
        good.check_preprocessing().unwrap();
        let mut older = good.clone();
        older.preprocessing = None;
        older.check_preprocessing().unwrap();
        let changes: [fn(&mut Preprocessing); 4] = [
            |changed| changed.side = 64,
            |changed| changed.crop = "all".to_owned(),
            |changed| changed.mean[1] = 0.5,
            |changed| changed.background = "black".to_owned(),
        ];
        for change in changes {
            let mut other = good.clone();
            other.preprocessing.iter_mut().for_each(change);
            let hash = preprocessing_hash(&other.preprocessing());
            assert_ne!(Some(hash), good.preprocessing_hash);
            let refused = other.check_preprocessing().unwrap_err().to_string();
            assert!(refused.contains("centre_square"), "{refused}");
        }
    }

    #[test]
    fn a_part_of_other_length_or_content_is_found_out() {
        let part = Part::new(MODEL, b"weights");
        let refusal = |bytes: &[u8]| part.check(bytes).unwrap_err().to_string();
        part.check(b"weights").unwrap();
        assert!(refusal(b"weight").contains("bytes"));
        assert!(refusal(b"weightS").contains("SHA-256"));
    }
}

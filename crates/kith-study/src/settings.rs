//! The studies, their scales, and overrides of single settings of a preset.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::StudyError;

/// The studies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyKind {
    /// Whether the chains sample the softmax.
    Stationarity,
    /// Whether the mean gradient is that of the global loss.
    Gradient,
    /// The paper's figure 2: gradient error and global loss along training.
    Figure2,
    /// The paper's figure 1: accuracy of the features along training.
    Figure1,
    /// Time and memory of a step and of the chain table.
    Cost,
    /// One encoder or two for sides that look nothing alike.
    Towers,
}

impl StudyKind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stationarity => "stationarity",
            Self::Gradient => "gradient",
            Self::Figure2 => "figure2",
            Self::Figure1 => "figure1",
            Self::Cost => "cost",
            Self::Towers => "towers",
        }
    }
}

/// The preset of a study's settings: how much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Under a minute; shows that the study runs.
    Smoke,
    /// Under an hour on two cores.
    Laptop,
    /// The published setting.
    Paper,
}

/// `preset` with single fields with_overrides, each by `key=value`. A value is JSON, or else a string.
pub(super) fn with_overrides<T: Serialize + DeserializeOwned>(
    preset: &T,
    sets: &[String],
) -> Result<T, StudyError> {
    let mut fields = match serde_json::to_value(preset) {
        Ok(Value::Object(fields)) => fields,
        _ => return Err(StudyError::config("the preset has no fields")),
    };
    let names: Vec<String> = fields.keys().cloned().collect();
    for set in sets {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| StudyError::config(format!("{set:?} is not KEY=VALUE")))?;
        let field = fields.get_mut(key).ok_or_else(|| {
            let known = names.join(", ");
            StudyError::config(format!("this study has no setting {key:?}; it has {known}"))
        })?;
        *field = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| StudyError::config(format!("a setting of the study: {error}")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Preset {
        steps: u64,
        batches: Vec<usize>,
    }

    #[test]
    fn single_settings_are_overridden_and_unknown_ones_refused() {
        let preset = Preset {
            steps: 3,
            batches: vec![4],
        };
        let with = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            with_overrides(&preset, &sets)
        };
        let expected = Preset {
            steps: 9,
            batches: vec![8, 32],
        };
        assert_eq!(with(&["steps=9", "batches=[8,32]"]).unwrap(), expected);
        for (set, part) in [
            ("step=9", "it has batches, steps"),
            ("steps=many", "invalid type"),
            ("steps", "KEY=VALUE"),
        ] {
            let error = with(&[set]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

//! Why a file of weights is refused.

use std::fmt;

/// Most keys of one kind that a message names.
const MAX_NAMED: usize = 12;
/// Most characters of a text from the file in a message.
const MAX_SHOWN: usize = 200;

/// Why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is longer than any file of this network.
    #[error("it has {found} bytes, and at most {max} are read")]
    TooLarge {
        /// Its bytes.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A file from before PyTorch 1.6, which is a bare pickle or a tar archive.
    #[error(
        "it is in PyTorch's format from before 1.6: convert it with `python3 -c \"import torch; \
         torch.save(torch.load('OLD.pth', map_location='cpu', weights_only=True), 'NEW.pth')\"`"
    )]
    OldTorch,
    /// It is neither a safetensors file nor a `.pth`, or it is cut off or damaged.
    #[error("it is no .safetensors or .pth file of weights: {0}")]
    Malformed(String),
    /// Its pickle asks for something else than tensors and dictionaries.
    #[error(
        "its pickle asks for {0}, which is never run: save the state dict alone, \
         `torch.save(model.state_dict(), 'NEW.pth')`"
    )]
    Calls(String),
    /// It holds another network.
    #[error("it holds {0}, and kith runs ResNet-18")]
    OtherNetwork(String),
    /// Its network has another width than the one that is wanted.
    #[error("its network has width {found}, but encoder.width is {wanted}")]
    Width {
        /// Its channels of the first stage.
        found: usize,
        /// Those that are wanted.
        wanted: usize,
    },
    /// Keys are missing, unexpected or of the wrong shape.
    #[error("it is not torchvision's or timm's ResNet-18: {0}")]
    Keys(KeyProblems),
    /// A value is infinite or not a number, or a variance is negative.
    #[error("{0} holds values that are not finite, or a negative variance")]
    NotFinite(String),
    /// Arrays that should be an encoder's are not.
    #[error("the weights are not an encoder's: {0}")]
    NotAnEncoder(String),
}

impl WeightsError {
    /// A file that cannot be understood. `why` may hold text from the file, so it is cut.
    pub(super) fn malformed(why: impl fmt::Display) -> Self {
        Self::Malformed(printable(&why.to_string()))
    }

    /// A pickle that asks for `what`, which is text from the file.
    pub(super) fn calls(what: &str) -> Self {
        Self::Calls(printable(what))
    }
}

/// The first 200 characters of a text from a file, such as a key, with spaces in place of control characters and of those that turn the direction of
/// text: it is shown in logs and terminals.
pub fn printable(text: &str) -> String {
    let is_visible = |one: char| {
        !one.is_control()
            && !matches!(one, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown: String = text
        .chars()
        .map(|one| if is_visible(one) { one } else { ' ' })
        .take(MAX_SHOWN)
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        format!("{shown}…")
    } else {
        shown
    }
}

/// The keys that do not fit, by kind.
#[derive(Debug, Default, PartialEq)]
pub struct KeyProblems {
    /// Keys of ResNet-18 that the file lacks.
    pub missing: Vec<String>,
    /// Keys inside the network that ResNet-18 lacks.
    pub unexpected: Vec<String>,
    /// Keys with their shape and the shape that they should have.
    pub misshapen: Vec<String>,
}

impl KeyProblems {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for KeyProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of the wrong shape", &self.misshapen),
        ];
        let texts = kinds.iter().filter(|(_, keys)| !keys.is_empty());
        let texts: Vec<String> = texts
            .map(|(kind, keys)| format!("{kind}: {}", listed(keys)))
            .collect();
        f.write_str(&texts.join("; "))
    }
}

fn listed(keys: &[String]) -> String {
    let named: Vec<String> = keys
        .iter()
        .take(MAX_NAMED)
        .map(|key| printable(key))
        .collect();
    let named = named.join(", ");
    match keys.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

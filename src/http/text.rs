//! Callers' text inside messages: short, on one line, and in quotes.

/// Most bytes of an error's message.
pub(super) const MAX_MESSAGE: usize = 2048;

/// Most bytes of the path of a field.
pub(super) const MAX_PARAM: usize = 256;

/// Most bytes of a caller's text inside a message.
const MAX_QUOTED: usize = 120;

/// At most `max` bytes of `text`, with blanks in place of control characters. A cut is marked by an ellipsis.
pub(super) fn truncated(text: &str, max: usize) -> String {
    let mut short = String::with_capacity(text.len().min(max));
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if short.len() + letter.len_utf8() + '…'.len_utf8() > max {
            short.push('…');
            break;
        }
        short.push(letter);
    }
    short
}

/// The beginning of `text`, in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", truncated(text, MAX_QUOTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_has_no_control_characters() {
        assert_eq!(truncated("abc", 10), "abc");
        assert_eq!(truncated("a\n\u{1b}[31mb", 20), "a  [31mb");
        let long = truncated(&"ü".repeat(5000), MAX_MESSAGE);
        assert!(long.len() <= MAX_MESSAGE && long.ends_with('…'));
        assert!(quoted(&"x".repeat(1 << 20)).len() <= MAX_QUOTED + 2);
    }
}

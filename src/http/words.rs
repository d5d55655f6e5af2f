//! Text of callers inside messages: always short, on one line, and clearly theirs.

/// Most bytes of an error's message.
pub(super) const MAX_MESSAGE: usize = 2048;

/// Most bytes of the path of a field.
pub(super) const MAX_PARAM: usize = 256;

/// Most bytes of a caller's text inside a message.
const MAX_QUOTED: usize = 120;

/// At most `max` bytes of `text`, without control characters. What was cut off is marked.
pub(super) fn bounded(text: &str, max: usize) -> String {
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

/// The beginning of a caller's text, in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", bounded(text, MAX_QUOTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_its_control_characters_go() {
        assert_eq!(bounded("abc", 10), "abc");
        assert_eq!(bounded("a\n\u{1b}[31mb", 20), "a  [31mb");
        let long = bounded(&"ü".repeat(5000), MAX_MESSAGE);
        assert!(long.len() <= MAX_MESSAGE && long.ends_with('…'));
        assert!(quoted(&"x".repeat(1 << 20)).len() <= MAX_QUOTED + 2);
    }
}

//! What a parser says about a field that does not fit, said again in the caller's words: JSON's kinds in place of Rust's, and never long.

use super::{
    error::Problem,
    words::{bounded, quoted},
};

/// Most bytes of the list of names that would have been right.
const MAX_NAMES: usize = 600;

/// The path that the parser gives to the document as a whole.
const WHOLE: &str = ".";

/// From the parser's `text` about the field at `path`. `code` is the answer's, unless the field is missing.
pub(super) fn explain(code: &'static str, path: &str, text: &str) -> Problem {
    let named = |rest: &str| rest.trim_end_matches('`').to_owned();
    if let Some(rest) = text.strip_prefix("missing field `") {
        let field = named(rest);
        let message = format!("the field {} is missing", quoted(&field));
        return at(Problem::new("missing_field", message), &join(path, &field));
    }
    let message = if let Some(rest) = text.strip_prefix("unknown field `") {
        let (field, known) = split(rest);
        let known = known.map_or("none is".to_owned(), |known| format!("{known} are"));
        format!("there is no field {}: {known} known here", quoted(field))
    } else if let Some(rest) = text.strip_prefix("unknown variant `") {
        let (value, known) = split(rest);
        let known = known.unwrap_or_default();
        format!("{} is not known here: choose from {known}", quoted(value))
    } else if let Some(rest) = text.strip_prefix("duplicate field `") {
        format!("the field {} is given twice", quoted(&named(rest)))
    } else {
        kinds(text)
    };
    at(Problem::new(code, message), path)
}

fn at(problem: Problem, path: &str) -> Problem {
    if path == WHOLE || path.is_empty() {
        problem
    } else {
        problem.at(bounded(path, super::words::MAX_PARAM))
    }
}

fn join(path: &str, field: &str) -> String {
    if path == WHOLE || path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// "X`, expected one of `a`, `b`": the caller's X, and the names. The last mark counts: X may hold anything.
fn split(rest: &str) -> (&str, Option<String>) {
    let Some((value, known)) = rest.rsplit_once("`, expected ") else {
        let value = rest.rsplit_once("`, there are no").map_or(rest, |(x, _)| x);
        return (value, None);
    };
    let known = known.trim_start_matches("one of ").replace('`', "");
    (value, Some(bounded(&known, MAX_NAMES)))
}

/// "invalid type: FOUND, expected WANTED", and what parsers of query values say.
fn kinds(text: &str) -> String {
    let parts = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = parts.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!(
            "this is {}: send {}",
            found_kind(found),
            wanted_kind(wanted)
        );
    }
    let remedy = if text.contains("digit") || text.contains("number too") {
        "send a whole number"
    } else if text.contains("float") {
        "send a number"
    } else if text.contains("`true` or `false`") {
        "send true or false"
    } else {
        "see the documentation of this field"
    };
    format!("the value cannot be used: {remedy}")
}

fn found_kind(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "string" | "character" => format!("the text {}", quoted(value.trim_matches(['"', '`']))),
        "integer" | "floating" => {
            let number = value.trim_start_matches("point ").trim_matches('`');
            format!("the number {}", bounded(number, 40))
        }
        "boolean" => value.trim_matches('`').to_owned(),
        "sequence" => "a list".to_owned(),
        "map" | "struct" => "an object".to_owned(),
        "null" | "unit" | "Option" => "null".to_owned(),
        _ => "another kind of value".to_owned(),
    }
}

fn wanted_kind(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or above",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a sequence" | "a tuple" => "a list",
        "a map" => "an object",
        // Our own words about our own types.
        own if own.starts_with("a ") || own.starts_with("an ") => own,
        _ => "what the documentation says of this field",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parser says, the code for unknown choices, the field, and what kith says.
    const SAID: [(&str, &str, &str, &str); 10] = [
        (
            "missing field `input`",
            "missing_field",
            "p.input",
            "the field \"input\" is missing",
        ),
        (
            "unknown field `a`, expected `b` or `c`",
            "c",
            "p",
            "there is no field \"a\": b or c are known here",
        ),
        (
            "unknown field `a`, there are no fields",
            "c",
            "p",
            "there is no field \"a\": none is known here",
        ),
        (
            "unknown variant `a`, expected one of `b`, `c`",
            "c",
            "p",
            "\"a\" is not known here: choose from b, c",
        ),
        (
            "duplicate field `a`",
            "c",
            "p",
            "the field \"a\" is given twice",
        ),
        (
            "invalid type: integer `5`, expected a string",
            "c",
            "p",
            "this is the number 5: send a string",
        ),
        (
            "invalid value: integer `-1`, expected usize",
            "c",
            "p",
            "this is the number -1: send a whole number, 0 or above",
        ),
        (
            "invalid type: floating point `1.5`, expected f32",
            "c",
            "p",
            "this is the number 1.5: send a number",
        ),
        (
            "invalid type: sequence, expected struct Document",
            "c",
            "p",
            "this is a list: send what the documentation says of this field",
        ),
        (
            "invalid digit found in string",
            "c",
            "p",
            "the value cannot be used: send a whole number",
        ),
    ];

    #[test]
    fn what_the_parser_says_is_said_in_words_of_json() {
        for (text, code, param, message) in SAID {
            let problem = explain("c", "p", text);
            assert_eq!(
                (problem.code, problem.param.as_deref()),
                (code, Some(param)),
                "{text}"
            );
            assert_eq!(problem.message, message);
        }
        assert_eq!(
            explain("c", ".", "missing field `x`").param.as_deref(),
            Some("x")
        );
    }

    #[test]
    fn a_callers_own_words_cannot_stretch_or_forge_a_message() {
        let long = "x".repeat(1 << 20);
        for text in [
            format!("unknown field `{long}`, expected `a`"),
            format!("unknown variant `{long}`, expected `a`"),
            format!("invalid type: string \"{long}\", expected u32"),
        ] {
            assert!(explain("c", &long, &text).message.len() < 400);
        }
        let forged = explain(
            "c",
            "p",
            "unknown field `a`, expected `usize`, expected `b`",
        );
        assert!(
            forged.message.ends_with("b are known here"),
            "{}",
            forged.message
        );
    }
}

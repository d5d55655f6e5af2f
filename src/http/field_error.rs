//! Serde's messages about a field, reworded for callers: JSON's types in place of Rust's, and of limited length. Serde gives them as text
//! only, so they are taken apart here.

use super::{
    error::Problem,
    text::{MAX_PARAM, quoted, truncated},
};

/// Most bytes of the list of known names.
const MAX_NAMES: usize = 600;

/// The path of the whole document, as `serde_path_to_error` writes it.
const ROOT: &str = ".";

/// The problem with the field at `path` that serde describes as `text`. `code`: of the answer, unless the field is missing.
pub(super) fn field_problem(code: &'static str, path: &str, text: &str) -> Problem {
    let name = |rest: &str| rest.trim_end_matches('`').to_owned();
    if let Some(rest) = text.strip_prefix("missing field `") {
        let field = name(rest);
        let message = format!("the field {} is missing", quoted(&field));
        return with_path(Problem::new("missing_field", message), &join(path, &field));
    }
    if let Some(expected) = text.strip_prefix("invalid type: null, expected ") {
        let message = format!(
            "this is null, which counts as missing: send {}",
            expected_type(expected)
        );
        return with_path(Problem::new("missing_field", message), path);
    }
    let message = if let Some(rest) = text.strip_prefix("unknown field `") {
        let (field, known) = split_expected(rest);
        let known = known.map_or("there are none".to_owned(), |known| {
            format!("known are {known}")
        });
        format!("there is no field {}: {known}", quoted(field))
    } else if let Some(rest) = text.strip_prefix("unknown variant `") {
        let (value, known) = split_expected(rest);
        let known = known.unwrap_or_default();
        format!("{} is unknown: choose from {known}", quoted(value))
    } else if let Some(rest) = text.strip_prefix("duplicate field `") {
        format!("the field {} is given twice", quoted(&name(rest)))
    } else {
        wrong_type(text)
    };
    with_path(Problem::new(code, message), path)
}

fn with_path(problem: Problem, path: &str) -> Problem {
    if path == ROOT || path.is_empty() {
        problem
    } else {
        problem.with_param(truncated(path, MAX_PARAM))
    }
}

fn join(path: &str, field: &str) -> String {
    if path == ROOT || path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// Splits "X`, expected one of `a`, `b`" into X and the names. X is the caller's and may hold anything, so the last separator counts.
fn split_expected(rest: &str) -> (&str, Option<String>) {
    let Some((value, known)) = rest.rsplit_once("`, expected ") else {
        let value = rest.rsplit_once("`, there are no").map_or(rest, |(x, _)| x);
        return (value, None);
    };
    let known = known.trim_start_matches("one of ").replace('`', "");
    (value, Some(truncated(&known, MAX_NAMES)))
}

/// Rewords "invalid type: FOUND, expected EXPECTED", and the errors of parsers of query values.
fn wrong_type(text: &str) -> String {
    let parts = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "));
    if let Some((found, expected)) = parts.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!(
            "this is {}: send {}",
            found_type(found),
            expected_type(expected)
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

fn found_type(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "string" | "character" => format!("the text {}", quoted(value.trim_matches(['"', '`']))),
        "integer" | "floating" => {
            let number = value.trim_start_matches("point ").trim_matches('`');
            format!("the number {}", truncated(number, 40))
        }
        "boolean" => value.trim_matches('`').to_owned(),
        "sequence" => "a list".to_owned(),
        "map" | "struct" => "an object".to_owned(),
        "null" | "unit" | "Option" => "null".to_owned(),
        _ => "a value of another type".to_owned(),
    }
}

fn expected_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or above",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a sequence" | "a tuple" => "a list",
        "a map" => "an object",
        // `expecting` of this crate's own visitors.
        own if own.starts_with("a ") || own.starts_with("an ") => own,
        _ => "what the documentation of this field describes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serde's message, the code, the field, and the message for callers.
    const REWORDED: [(&str, &str, &str, &str); 10] = [
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
            "there is no field \"a\": known are b or c",
        ),
        (
            "unknown field `a`, there are no fields",
            "c",
            "p",
            "there is no field \"a\": there are none",
        ),
        (
            "unknown variant `a`, expected one of `b`, `c`",
            "c",
            "p",
            "\"a\" is unknown: choose from b, c",
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
            "this is a list: send what the documentation of this field describes",
        ),
        (
            "invalid digit found in string",
            "c",
            "p",
            "the value cannot be used: send a whole number",
        ),
    ];

    #[test]
    fn serdes_messages_are_reworded_for_json() {
        for (text, code, param, message) in REWORDED {
            let problem = field_problem("c", "p", text);
            assert_eq!(
                (problem.code, problem.param.as_deref()),
                (code, Some(param)),
                "{text}"
            );
            assert_eq!(problem.message, message);
        }
        assert_eq!(
            field_problem("c", ".", "missing field `x`")
                .param
                .as_deref(),
            Some("x")
        );
    }

    #[test]
    fn a_callers_text_cannot_lengthen_or_forge_a_message() {
        let long = "x".repeat(1 << 20);
        for text in [
            format!("unknown field `{long}`, expected `a`"),
            format!("unknown variant `{long}`, expected `a`"),
            format!("invalid type: string \"{long}\", expected u32"),
        ] {
            assert!(field_problem("c", &long, &text).message.len() < 400);
        }
        let forged = field_problem(
            "c",
            "p",
            "unknown field `a`, expected `usize`, expected `b`",
        );
        assert!(
            forged.message.ends_with("known are b"),
            "{}",
            forged.message
        );
    }
}

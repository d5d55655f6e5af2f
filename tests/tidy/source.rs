//! Rust source as plain text: what is code in it, where words start, what brackets hold. Knows no rule.

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(crate) fn word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

/// Places where `needle` starts and no longer word ends.
pub(crate) fn starts<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(needle)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].ends_with(is_word))
}

pub(crate) fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// `code` up to the bracket that closes the first one.
pub(crate) fn bracketed(code: &str) -> &str {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' if depth == 1 => return &code[..=at],
            '}' | ')' => depth -= 1,
            _ => (),
        }
    }
    code
}

/// First path segments after a `crate::` or the like: one, or those of a group in braces.
pub(crate) fn segments(rest: &str) -> Vec<&str> {
    if !rest.starts_with('{') {
        return vec![word(rest)];
    }
    let mut depth = 0;
    let parts = bracketed(rest).split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 1
    });
    parts
        .map(|part| word(part.trim_start_matches(['{', ' ', '\n', '\t'])))
        .collect()
}

/// Modules opened inline around `at`.
pub(crate) fn inline_depth(code: &str, at: usize) -> usize {
    let mut stack = Vec::new();
    for (brace, c) in code[..at].char_indices() {
        match c {
            '{' => {
                let name = code[..brace].trim_end().trim_end_matches(is_word);
                stack.push(name.trim_end().ends_with("mod"));
            }
            '}' => drop(stack.pop()),
            _ => (),
        }
    }
    stack.into_iter().filter(|&module| module).count()
}

/// `code` without its items marked `#[cfg(test)]`; line breaks stay.
pub(crate) fn untested(code: &str) -> String {
    let Some(at) = code.find("#[cfg(test)]") else {
        return code.into();
    };
    let item = &code[at + "#[cfg(test)]".len()..];
    let ends_early = item.find(';') < item.find('{');
    let end = match item.find(';') {
        Some(end) if ends_early || !item.contains('{') => end + 1,
        _ => item
            .find('{')
            .map_or(item.len(), |open| open + bracketed(&item[open..]).len()),
    };
    let breaks: String = item[..end].matches('\n').collect();
    format!("{}{breaks}{}", &code[..at], untested(&item[end..]))
}

/// What the compiler sees: no comments, empty strings; line breaks stay.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skipped(rest, &out);
        let taken = match skipped {
            0 => c.len_utf8(),
            length => length,
        };
        match skipped {
            0 => out.push(c),
            _ => out.extend(rest[..taken].chars().filter(|&c| c == '\n')),
        }
        rest = &rest[taken..];
    }
    out
}

/// Bytes of the comment, string or character that starts here; 0: it is code.
pub(crate) fn skipped(rest: &str, before: &str) -> usize {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        to(rest.find('\n'))
    } else if rest.starts_with("/*") {
        to(rest.find("*/").map(|at| at + 2))
    } else if let Some(raw) = rest
        .strip_prefix('r')
        .filter(|_| !before.ends_with(is_word))
    {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let close = format!("\"{}", "#".repeat(hashes));
        match raw[hashes..].strip_prefix('"') {
            Some(body) => to(body.find(&close).map(|at| 2 * (hashes + 1) + 1 + at)),
            None => 0,
        }
    } else if let Some(body) = rest.strip_prefix('"') {
        to(closing(body, '"').map(|at| at + 2))
    } else if let Some(body) = rest.strip_prefix('\'') {
        let mut chars = body.chars();
        let escaped = chars.next() == Some('\\');
        let short = chars.next() == Some('\'');
        closing(body, '\'')
            .filter(|_| escaped || short)
            .map_or(0, |at| at + 2)
    } else {
        0
    }
}

/// Where an unescaped `quote` stands.
pub(crate) fn closing(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    body.char_indices().find_map(|(at, c)| {
        let found = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

#[test]
fn comments_and_strings_are_no_code_and_lines_keep_their_numbers() {
    for (text, expected) in [
        ("a // b\nc", "a \nc"),
        ("a /* b\nb */ c", "a \n c"),
        (r#"f("a \" // b", 'x')"#, "f(, )"),
        ("r#\"a \" b\"# + r\"c\" + d", " +  + d"),
        (r"['\'', '\\', '\n', b'{'] c", "[, , , b] c"),
        (
            "fn f<'a>(x: &'a str) -> &'static str",
            "fn f<'a>(x: &'a str) -> &'static str",
        ),
        ("\"a\nb\" c", "\n c"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

#[test]
fn test_items_are_cut_out_and_what_follows_stays() {
    let text = "a();\n#[cfg(test)]\nuse b;\nc();\n#[cfg(test)]\nmod tests { fn d() {} }\ne();";
    assert_eq!(untested(text), "a();\n\n\nc();\n\n\ne();");
}

#[test]
fn only_modules_opened_around_a_place_count() {
    let text = "mod a { fn f() {} } mod b { mod c { if x { here";
    assert_eq!(inline_depth(text, text.len()), 2);
}

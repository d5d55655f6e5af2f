//! Pages that are inside the program: one file each, with its style and script in it, that asks nothing of other hosts.

use axum::{
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// A page and what it may do.
pub(super) struct HtmlPage {
    text: String,
    policy: String,
}

/// The parts of a page.
pub(super) struct Parts<'a> {
    /// The page, with `{style}` and `{script}` where those belong.
    pub(super) html: &'a str,
    /// The style sheet.
    pub(super) style: &'a str,
    /// The script.
    pub(super) script: &'a str,
    /// What the page may do besides running its own style and script: more of a content security policy.
    pub(super) policy: &'a str,
}

impl HtmlPage {
    /// Nothing runs but the page's own style and script.
    pub(super) fn new(parts: &Parts) -> Self {
        let Parts {
            html,
            style,
            script,
            policy,
        } = parts;
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let place = |text: &str, name: &str, content: &str| {
            let (before, after) = text.split_once(name).unwrap_or((text, ""));
            // Only here: what is put in may hold the other name.
            format!("{before}{content}{after}")
        };
        // The script comes last in the page, so it is placed first.
        let text = place(&place(html, "{script}", script), "{style}", style);
        Self {
            text,
            policy: format!(
                "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'; {policy}",
                hash(script),
                hash(style)
            ),
        }
    }

    pub(super) fn response(&'static self) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, self.policy.as_str()),
        ];
        (headers, self.text.as_str()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_page_stays_as_it_is() {
        let page = HtmlPage::new(&Parts {
            html: "<style>{style}</style><script>{script}</script>",
            style: "a { b }",
            script: "`{style}{script}`",
            policy: "connect-src 'self'",
        });
        assert_eq!(
            page.text,
            "<style>a { b }</style><script>`{style}{script}`</script>"
        );
        assert!(page.policy.ends_with("; connect-src 'self'"));
    }
}

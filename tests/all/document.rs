//! The document of the interface (`GET /openapi.json`) as tests use it: every answer that a test gets must be in it.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::support::Reply;

/// The document, read.
pub(crate) struct Document(pub(crate) Value);

impl Document {
    pub(crate) fn new(document: Value) -> Self {
        Self(document)
    }

    /// Method and path of every operation.
    pub(crate) fn operations(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().keys();
            all.extend(methods.map(|method| (method.to_ascii_uppercase(), path.clone())));
        }
        all
    }

    /// The path of the document that a request's path belongs to.
    pub(crate) fn pattern(&self, path: &str) -> Option<String> {
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let asked = parts(path);
        let fits = |pattern: &&String| {
            let pattern = parts(pattern);
            let mut pairs = asked.iter().zip(&pattern);
            pattern.len() == asked.len()
                && pairs.all(|(part, of)| part == of || (of.starts_with('{') && !part.is_empty()))
        };
        let paths = self.0["paths"].as_object().unwrap().keys();
        let mut fitting: Vec<_> = paths.filter(fits).collect();
        // A fixed path goes before one with a parameter.
        fitting.sort_by_key(|path| path.matches('{').count());
        fitting.first().map(ToString::to_string)
    }

    pub(crate) fn operation(&self, method: &str, pattern: &str) -> &Value {
        &self.0["paths"][pattern][method.to_ascii_lowercase()]
    }

    /// Follows a reference.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(path) => {
                let pointer = path.strip_prefix('#').unwrap();
                let found = self.0.pointer(pointer);
                self.resolve(found.unwrap_or_else(|| panic!("{path} is not in the document")))
            }
            None => value,
        }
    }

    /// Asserts that the status of an answer, its media type and the code of an error are documented.
    pub(crate) fn check(&self, method: &Method, path: &str, reply: &Reply) {
        let get = if method == Method::HEAD {
            "GET"
        } else {
            method.as_str()
        };
        let operation = self.pattern(path);
        let operation = operation.map(|pattern| self.operation(get, &pattern));
        let Some(operation) = operation.filter(|operation| !operation.is_null()) else {
            // No such route or method; or a page of another site, or a key, is refused before that is known.
            assert!(
                !reply.status.is_success() || method == Method::OPTIONS,
                "{method} {path}"
            );
            return;
        };
        let status = reply.status.as_u16().to_string();
        let shown = format!("{method} {path} {status} {}", reply.text());
        let answer = self.resolve(&operation["responses"][&status]);
        assert!(answer.is_object(), "not in the document: {shown}");
        if method == Method::HEAD || reply.status == StatusCode::NOT_MODIFIED {
            return;
        }
        let media = reply.header("content-type");
        match (media, answer["content"].as_object()) {
            (None, None) => {}
            (Some(media), Some(content)) => {
                let known = |name: &String| {
                    name == media || (name == "image/*" && media.starts_with("image/"))
                };
                assert!(
                    content.keys().any(known),
                    "{media} is not in the document: {shown}"
                );
            }
            (media, content) => panic!("{media:?} in place of {content:?}: {shown}"),
        }
        if reply.status.as_u16() >= 400 {
            let code = &reply.json()["error"]["code"];
            let codes = &answer["content"]["application/json"]["schema"]["allOf"][1];
            let codes = &codes["properties"]["error"]["properties"]["code"]["enum"];
            let known = codes.as_array().unwrap().contains(code);
            assert!(known, "{code} is not in the document: {shown}");
        }
    }
}

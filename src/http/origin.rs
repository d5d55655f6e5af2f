//! Who may ask through a browser: a web page of another site may not, whatever the browser lets it send (no preflight guards forms), and
//! a name that an attacker's DNS points at this machine is not this server's name. Programs send no `Origin` and pass.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::{ApiError, Problem},
    words::quoted,
};
use crate::config::ServerConfig;

/// Allows every host name.
const ANY: &str = "*";

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The names of this server and the sites that may use it; cheap to clone.
#[derive(Clone)]
pub(super) struct Allowed {
    names: Arc<Names>,
}

struct Names {
    /// Host of `server.listen`.
    listen: String,
    /// Others can reach the address, by its number or by a name of their own network.
    exposed: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Allowed {
    pub(super) fn new(server: &ServerConfig) -> Self {
        let listen = host_of(&server.listen).to_ascii_lowercase();
        Self {
            names: Arc::new(Names {
                exposed: !is_loopback(&listen),
                listen,
                hosts: lower(&server.allowed_hosts),
                origins: lower(&server.allowed_origins),
            }),
        }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let host = host(request.uri(), request.headers())?;
        if let Some(host) = &host
            && !self.is_host(host)
        {
            let message = format!(
                "this server is not called {}: ask it by its address, or add the name to server.allowed_hosts",
                quoted(host)
            );
            return Err(forbidden("forbidden_host", "host", message));
        }
        self.check_page(request.method(), request.headers(), host.as_deref())
    }

    fn is_host(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let names = &self.names;
        let listed = names
            .hosts
            .iter()
            .any(|name| name == ANY || name == host || name == authority);
        // Nobody but this network names a host without a dot, and an address has no name to be pointed elsewhere.
        let local = || names.exposed && (address(host).is_some() || !host.contains('.'));
        listed || is_loopback(host) || host == names.listen || local()
    }

    fn check_page(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: Option<&str>,
    ) -> Result<(), ApiError> {
        let refuse = |page: &str| {
            let message = format!(
                "a web page of {} may not use this server: if it should, add it to server.allowed_origins",
                quoted(page)
            );
            Err(forbidden("forbidden_origin", "origin", message))
        };
        if let Some(origin) = text(headers, header::ORIGIN)? {
            return if self.is_origin(&origin, host) {
                Ok(())
            } else {
                refuse(&origin)
            };
        }
        let site = text(headers, FETCH_SITE)?;
        let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
        if foreign && !is_visit(method, headers)? {
            return refuse("another site");
        }
        Ok(())
    }

    /// The server's own pages, and those that are listed.
    fn is_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let own = |host| same_place(origin, host);
        self.names.origins.iter().any(|listed| listed == origin) || host.is_some_and(own)
    }
}

/// Refuses with 403 what a page of another site sends.
pub(super) async fn guard(
    State(allowed): State<Allowed>,
    request: Request,
    next: Next,
) -> Response {
    match allowed.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Somebody follows a link: the browser shows the answer, and the page with the link never sees it.
fn is_visit(method: &Method, headers: &HeaderMap) -> Result<bool, ApiError> {
    let shown = text(headers, FETCH_MODE)?.as_deref() == Some("navigate")
        && text(headers, FETCH_DEST)?.as_deref() == Some("document");
    Ok(shown && (method == Method::GET || method == Method::HEAD))
}

/// Whom the request was addressed to, in lower case. A request without it comes from no browser.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    match uri.authority() {
        Some(authority) => Ok(Some(authority.as_str().to_ascii_lowercase())),
        None => text(headers, header::HOST),
    }
}

/// A header's one value, in lower case.
fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next();
    let text = value.map(|value| value.to_str().map(str::to_ascii_lowercase));
    match (text.transpose(), values.next()) {
        (Ok(text), None) => Ok(text),
        _ => {
            let message = "this header must be sent once, in ASCII";
            Err(forbidden("forbidden_header", name.as_str(), message))
        }
    }
}

fn forbidden(code: &'static str, param: &str, message: impl Into<String>) -> ApiError {
    ApiError::Forbidden(Problem::new(code, message).at(param))
}

/// Whether a page's origin (`http://host:port`) is what `host` (`host:port`) names.
fn same_place(origin: &str, host: &str) -> bool {
    let stripped = |scheme: &str, port: &str| {
        let place = origin.strip_prefix(scheme)?;
        Some(place.strip_suffix(port).unwrap_or(place) == host.strip_suffix(port).unwrap_or(host))
    };
    // Behind a proxy pages are https although this server is not.
    stripped("http://", ":80") == Some(true) || stripped("https://", ":443") == Some(true)
}

/// The host in `host:port`, `[::1]:port`, or alone; without brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

fn lower(names: &[String]) -> Vec<String> {
    let names = names.iter();
    names
        .map(|name| name.trim_end_matches('/').to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn allowed(sets: &[&str]) -> Allowed {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Allowed::new(&Settings::from_layers(None, [], &sets).unwrap().server)
    }

    #[test]
    fn a_server_on_loopback_is_asked_by_loopback_names_only() {
        let allowed = allowed(&["server.allowed_hosts=kith.example.org"]);
        for host in [
            "localhost:7700",
            "127.0.0.1:7700",
            "127.8.8.8",
            "[::1]:7700",
            "[::ffff:127.0.0.1]:1",
            "kith.example.org",
            "kith.example.org:8080",
        ] {
            assert!(allowed.is_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.7:7700",
            "box:7700",
            "",
        ] {
            assert!(!allowed.is_host(host), "{host}");
        }
    }

    #[test]
    fn an_exposed_server_is_asked_by_any_address_and_any_name_of_its_own_network() {
        let allowed = allowed(&["server.listen=0.0.0.0:7700"]);
        for host in [
            "10.0.0.7:7700",
            "[fd00::7]:7700",
            "gpu-box:7700",
            "localhost:80",
        ] {
            assert!(allowed.is_host(host), "{host}");
        }
        assert!(!allowed.is_host("rebound.evil.example:7700"));
    }

    #[test]
    fn an_origin_is_the_servers_own_or_listed() {
        let allowed = allowed(&["server.allowed_origins=https://app.example.org/"]);
        for (origin, host) in [
            ("http://localhost:7700", "localhost:7700"),
            ("https://kith.example.org", "kith.example.org"),
            ("http://kith.example.org", "kith.example.org:80"),
            ("https://app.example.org", "localhost:7700"),
        ] {
            assert!(allowed.is_origin(origin, Some(host)), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost:3000",
            "https://evil.example",
            "http://app.example.org",
            "https://app.example.org.evil.example",
        ] {
            assert!(
                !allowed.is_origin(origin, Some("localhost:7700")),
                "{origin}"
            );
        }
    }
}

//! Refuses requests of web pages of other sites, which browsers send without a preflight for forms, and requests to a host name that is
//! not this server's (DNS rebinding). Programs other than browsers send no `Origin` and pass.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::{ApiError, Problem},
    text::quoted,
};
use crate::config::ServerConfig;

/// Allows every host name.
const ANY: &str = "*";

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The host names of this server and the sites that may use it; cheap to clone.
#[derive(Clone)]
pub(super) struct AllowedOrigins {
    names: Arc<Names>,
}

struct Names {
    /// Host of `server.listen`.
    listen: String,
    /// Whether other machines can reach the address.
    exposed: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl AllowedOrigins {
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
                "{} is not a name of this server: use its address, or add the name to server.allowed_hosts",
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
        // Only the local network resolves a name without a dot, and an address is not resolved at all.
        let local = || names.exposed && (address(host).is_some() || !host.contains('.'));
        listed || is_loopback(host) || host == names.listen || local()
    }

    /// Checks the page that sends the request, if one does.
    fn check_page(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: Option<&str>,
    ) -> Result<(), ApiError> {
        let refuse = |page: &str| {
            let message = format!(
                "a web page of {} may not use this server: to allow it, add it to server.allowed_origins",
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
        if foreign && !is_navigation(method, headers)? {
            return refuse("another site");
        }
        Ok(())
    }

    /// Whether it is the server's own origin or an allowed one.
    fn is_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let own = |host| is_same_host(origin, host);
        self.names.origins.iter().any(|listed| listed == origin) || host.is_some_and(own)
    }
}

/// Answers 403 to requests of other sites' pages and to other host names.
pub(super) async fn check_origin(
    State(allowed): State<AllowedOrigins>,
    request: Request,
    next: Next,
) -> Response {
    match allowed.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Whether somebody follows a link: the browser shows the answer, and the page with the link cannot read it.
fn is_navigation(method: &Method, headers: &HeaderMap) -> Result<bool, ApiError> {
    let navigates = text(headers, FETCH_MODE)?.as_deref() == Some("navigate")
        && text(headers, FETCH_DEST)?.as_deref() == Some("document");
    Ok(navigates && (method == Method::GET || method == Method::HEAD))
}

/// The host that the request names, in lower case. Browsers always name one.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    match uri.authority() {
        Some(authority) => Ok(Some(authority.as_str().to_ascii_lowercase())),
        None => text(headers, header::HOST),
    }
}

/// The only value of a header, in lower case.
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
    ApiError::Forbidden(Problem::new(code, message).with_param(param))
}

/// Whether an origin (`http://host:port`) is that of `host` (`host:port`).
fn is_same_host(origin: &str, host: &str) -> bool {
    let stripped = |scheme: &str, port: &str| {
        let named = origin.strip_prefix(scheme)?;
        Some(named.strip_suffix(port).unwrap_or(named) == host.strip_suffix(port).unwrap_or(host))
    };
    // Behind a proxy pages use https although this server does not.
    stripped("http://", ":80") == Some(true) || stripped("https://", ":443") == Some(true)
}

/// The host in `host:port`, `[::1]:port`, or alone; without brackets.
fn host_of(authority: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let bracketed = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    if let Some((host, port)) = bracketed {
        let alone = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        // What goes on after the bracket is no address, whatever the bracket holds.
        return if alone { host } else { authority };
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
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

    fn allowed(sets: &[&str]) -> AllowedOrigins {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        AllowedOrigins::new(&Settings::from_layers(None, [], &sets).unwrap().server)
    }

    #[test]
    fn a_server_on_loopback_has_loopback_names_only() {
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
            "[::1].evil.example:80",
            "[::1]evil.example",
            "",
        ] {
            assert!(!allowed.is_host(host), "{host}");
        }
    }

    #[test]
    fn an_exposed_server_has_any_address_and_any_name_without_a_dot() {
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
    fn an_origin_is_the_servers_own_or_an_allowed_one() {
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

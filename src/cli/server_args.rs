//! The arguments that name a running server, which every subcommand that asks one has.

use std::fmt;

use clap::Args;

const RETRIES: u32 = 6;

/// The server's address, and how often a request is retried.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Where the server listens
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7700",
        value_parser = address
    )]
    server: String,
    /// How often a request is sent again when the server is busy or cannot be reached [default: 6; `kith health`: 0]
    #[arg(long, global = true, value_name = "N")]
    retries: Option<u32>,
    /// A key of the server (`kith key create`), if it has any. The variable keeps it out of the list of processes
    #[arg(long, global = true, env = "KITH_KEY", hide_env_values = true)]
    key: Option<ApiKey>,
}

/// Accepts an address with its scheme: without one, a request would fail with a sentence that does not name the argument.
fn address(text: &str) -> Result<String, String> {
    let schemes = ["http://", "https://"];
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    if host.is_none_or(str::is_empty) {
        return Err("it must be an address such as http://127.0.0.1:7700".to_owned());
    }
    Ok(text.to_owned())
}

/// A key's text, which no log shows.
#[derive(Clone)]
struct ApiKey(String);

impl From<String> for ApiKey {
    fn from(text: String) -> Self {
        // A variable read from a file often ends with a line break.
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ServerArgs {
    /// The address, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        self.server.trim_end_matches('/')
    }

    /// The header that carries the key: `Bearer KEY`.
    pub(crate) fn authorization(&self) -> Option<String> {
        let key = self.key.as_ref();
        key.map(|key| format!("Bearer {}", key.0))
    }

    /// How often a request is retried.
    pub(crate) fn retries(&self) -> u32 {
        self.retries.unwrap_or(RETRIES)
    }

    /// How often a probe is retried.
    pub(crate) fn retries_of_probe(&self) -> u32 {
        self.retries.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for right in ["http://127.0.0.1:7700", "https://kith.example/"] {
            assert_eq!(address(right).as_deref(), Ok(right));
        }
        for wrong in ["", "localhost:7700", "ftp://host", "http://"] {
            assert!(address(wrong).unwrap_err().contains("http://"), "{wrong}");
        }
    }
}

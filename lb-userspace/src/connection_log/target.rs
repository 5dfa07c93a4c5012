//! Where the lines go, as the config file says.

use std::{fmt, path::PathBuf};

use hyper::Uri;

/// The beginning of an address of a collector.
const OTLP: &str = "otlp:";
/// Where a collector takes logs, unless the address says another path (OTLP/HTTP).
const LOGS: &str = "/v1/logs";

/// `[log]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSpec {
    /// Where lines go.
    pub connections: Target,
    /// The node's name in them, if it has one.
    pub node: Option<String>,
}

/// Somewhere that lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// They are appended to it.
    File(PathBuf),
    /// The journal of systemd.
    Journal,
    /// A collector that speaks OTLP/HTTP with JSON.
    Otlp(Uri),
}

impl Target {
    /// From `log.connections`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
        if file {
            return Ok(Self::File(text.into()));
        }
        if text == "journald" {
            return Ok(Self::Journal);
        }
        let Some(address) = text.strip_prefix(OTLP) else {
            return Err(format!(
                "log.connections \"{text}\" is no file's path from /, nor \"journald\", nor \"otlp:http://HOST:4318\"; \
                 write /var/log/flowpin/connections.log"
            ));
        };
        let refused = || {
            format!(
                "log.connections \"{text}\" is not otlp:http://HOST:PORT; name a collector that takes OTLP over HTTP without \
                 TLS, like otlp:http://127.0.0.1:4318"
            )
        };
        let uri: Uri = address.parse().map_err(|_| refused())?;
        let plain = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
        let login = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if !plain || login || uri.port_u16() == Some(0) {
            return Err(refused());
        }
        if uri.path() != "/" {
            return Ok(Self::Otlp(uri));
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        format!("http://{authority}{LOGS}").parse().map(Self::Otlp).map_err(|_| refused())
    }
}

/// For messages.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Journal => f.write_str("journald"),
            Self::Otlp(uri) => write!(f, "{uri}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_others_refused_with_a_remedy() {
        for (text, shown) in [
            ("/var/log/c.log", "/var/log/c.log"),
            ("journald", "journald"),
            ("otlp:http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
            ("otlp:http://[::1]:4318/", "http://[::1]:4318/v1/logs"),
            ("otlp:http://collector/otlp/v1/logs", "http://collector/otlp/v1/logs"),
        ] {
            assert_eq!(Target::parse(text).map(|target| target.to_string()), Ok(shown.into()), "{text}");
        }
        for text in ["", "c.log", "/", "/var/log/", "file", "syslog", "Journald", "http://c:4318"] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(&format!("\"{text}\"")) && error.contains("write /var/log"), "{error}");
        }
        for text in [
            "otlp:",
            "otlp:c:4318",
            "otlp:https://c:4318",
            "otlp:http://",
            "otlp:http://u:p@c",
            "otlp:http://c:0",
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(text) && error.contains("otlp:http://127.0.0.1:4318"), "{error}");
        }
    }
}

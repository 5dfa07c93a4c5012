//! A NATS server's address, as it is configured. A password in it is never shown.

use std::fmt;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use crate::MeshError;

/// What is shown in the place of a password or a token.
const SHOWN: &str = "***";

/// A server: `nats://HOST:4222`, or `tls://HOST:4222`, where TLS is a must; `USER:PASSWORD@` or `TOKEN@` may be before
/// the host. Both are percent-encoded, as in any URL.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// Without the login: the client logs it as it is.
    address: ServerAddr,
    login: Login,
}

#[derive(Clone, PartialEq, Eq)]
enum Login {
    None,
    Token(String),
    User { user: String, password: String },
}

impl NatsServer {
    /// Servers, with commas between them.
    ///
    /// # Errors
    /// One of them isn't any.
    pub fn list(text: &str) -> Result<Vec<Self>, MeshError> {
        let failed = |why: &str| MeshError::Server { shown: Self::without_login(text), why: why.to_owned() };
        text.split(',').map(|server| Self::parse(server.trim()).map_err(|why| failed(&why))).collect()
    }

    /// What was written as a server or a list of them, right or wrong, as it may be shown: with `***` in the place of
    /// whatever may be a login.
    pub fn without_login(text: &str) -> String {
        let after_scheme = |text: &str| text.find("://").map_or(0, |at| at + 3);
        if let Some(host) = text.rfind('@') {
            return format!("{}{SHOWN}{}", &text[..after_scheme(text).min(host)], &text[host..]);
        }
        // A port, or the password of a user without a host.
        let one = |text: &str| match text[after_scheme(text)..].rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => {
                format!("{}{SHOWN}", &text[..text.len() - port.len()])
            }
            _ => text.to_owned(),
        };
        text.split(',').map(one).collect::<Vec<_>>().join(",")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("nats" | "tls")) {
            return Err("it has to begin with nats:// or tls://".into());
        }
        let unusable =
            |_| "it is no URL; a comma, @, : or / in a password is written as %2C, %40, %3A or %2F";
        let mut url = text.parse::<ServerAddr>().map_err(unusable)?.into_inner();
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| "a login has to be UTF-8")?;
            Ok::<_, String>(text.into_owned())
        };
        let login = match (url.username(), url.password()) {
            ("", None) => Login::None,
            ("", Some(_)) => return Err("there is a password, and no user before it".into()),
            (token, None) => Login::Token(decoded(token)?),
            (user, Some(password)) => Login::User { user: decoded(user)?, password: decoded(password)? },
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("nothing may follow the port".into());
        }
        url.set_path("");
        if url.host_str().is_none_or(str::is_empty)
            || url.set_username("").is_err()
            || url.set_password(None).is_err()
        {
            return Err("it has no host".into());
        }
        let address = ServerAddr::from_url(url).map_err(|error| error.to_string())?;
        Ok(Self { address, login })
    }

    /// TLS is a must.
    pub(crate) fn is_tls(&self) -> bool {
        self.address.tls_required()
    }

    /// It says who the node is.
    pub(crate) const fn has_login(&self) -> bool {
        !matches!(self.login, Login::None)
    }

    pub(crate) const fn address(&self) -> &ServerAddr {
        &self.address
    }

    /// Adds the login.
    pub(crate) fn log_in(&self, options: ConnectOptions) -> ConnectOptions {
        match &self.login {
            Login::None => options,
            Login::Token(token) => options.token(token.clone()),
            Login::User { user, password } => options.user_and_password(user.clone(), password.clone()),
        }
    }
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.address.scheme())?;
        match &self.login {
            Login::None => {}
            Login::Token(_) => write!(f, "{SHOWN}@")?,
            Login::User { user, .. } => write!(f, "{user}:{SHOWN}@")?,
        }
        match self.address.host() {
            host if host.contains(':') => write!(f, "[{host}]:{}", self.address.port()),
            host => write!(f, "{host}:{}", self.address.port()),
        }
    }
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_passwords_and_tokens() {
        for (text, shown) in [
            ("nats://nats.example", "nats://nats.example:4222"),
            ("tls://[2001:db8::1]:4333/", "tls://[2001:db8::1]:4333"),
            ("nats://flowpin:s3cret@10.0.0.1:4222", "nats://flowpin:***@10.0.0.1:4222"),
            ("nats://s3cret@10.0.0.1", "nats://***@10.0.0.1:4222"),
        ] {
            let [server] = NatsServer::list(text).unwrap().try_into().unwrap();
            assert_eq!((server.to_string(), format!("{server:?}")), (shown.to_owned(), shown.to_owned()));
            assert!(!format!("{:?}", server.address()).contains("s3cret"), "the client logs this");
        }
        assert_eq!(NatsServer::list("nats://a, tls://u:p@b:1").unwrap().len(), 2);
    }

    #[test]
    fn logins_are_decoded() {
        let [server] = NatsServer::list("nats://a%40b:c%2Cd%3A@h").unwrap().try_into().unwrap();
        assert!(server.login == Login::User { user: "a@b".into(), password: "c,d:".into() });
        assert!(server.has_login());
    }

    #[test]
    fn what_is_no_server_is_said_without_its_password() {
        for (text, said) in [
            ("natz://flowpin:s3cret@h:4222", "\"natz://***@h:4222\" is no NATS server: it has to begin with"),
            ("nats://flowpin:s3cret", "\"nats://flowpin:***\" is no NATS server: it is no URL"),
            ("nats://flowpin:s3,cret@h", "\"nats://***@h\" is no NATS server"),
            ("nats://flowpin:s3cret@", "no NATS server"),
            ("nats://:s3cret@h", "no user before it"),
            ("nats://flowpin:%ffs3cret@h", "has to be UTF-8"),
            ("nats://h/s3cret?", "nothing may follow the port"),
            ("h:4222", "\"h:4222\" is no NATS server: it has to begin with nats:// or tls://"),
            ("nats://a,", "it has to begin with"),
            ("", "it has to begin with"),
        ] {
            let error = NatsServer::list(text).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("write nats://HOST:4222"), "{text}: {error}");
            assert!(!error.contains("s3") || text.contains('?'), "{text}: {error}");
        }
    }

    #[test]
    fn what_may_be_a_login_is_left_out() {
        for (text, shown) in [
            ("tcp", "tcp"),
            ("nats://a:4222,tls://[::1]:4222", "nats://a:4222,tls://[::1]:4222"),
            ("nats://u:s3,cret@a,nats://u:s3cret@b:1", "nats://***@b:1"),
            ("u:s3cret@a", "***@a"),
            ("@://s3cret@", "@://***@"),
            ("nats://a,nats://u:s3cret", "nats://a,nats://u:***"),
        ] {
            assert_eq!(NatsServer::without_login(text), shown);
        }
    }
}

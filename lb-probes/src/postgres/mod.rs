//! PostgreSQL, and poolers that speak as it does: protocol 3.0,
//! <https://www.postgresql.org/docs/current/protocol.html>.

mod login;
mod message;
mod scram;

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use self::message::{Message, Refusal};
use crate::{Invalid, peer::Peer};

/// What a server of a replicated set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Is in recovery: replays what a primary writes.
    Standby,
}

impl Role {
    const fn words(self) -> &'static str {
        match self {
            Self::Primary => "a primary",
            Self::Standby => "a standby",
        }
    }
}

/// Begins a login, and with a role asks `pg_is_in_recovery()`.
///
/// Without a role it is well if it asks for a password, lets the user in, or says why this user may not: that takes
/// no account. It isn't if it says that it starts up, shuts down, has no connection left or is out of order.
///
/// With a role the login has to succeed: by trust, a password in clear text, or SCRAM-SHA-256, whichever the server
/// asks for. Whoever answers at the backend's address may ask for clear text and gets it: so have an account without
/// rights.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Who logs in.
    pub user: String,
    /// Of which database; `None`: the one named as the user.
    pub database: Option<String>,
    /// What it must be; `None`: either.
    pub role: Option<Role>,
    /// The password, for a role. Taken as it is, without SASLprep, which changes nothing of ASCII.
    pub password: Option<String>,
}

/// Without the password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, database, role, password } = self;
        f.debug_struct("Postgres")
            .field("user", user)
            .field("database", database)
            .field("role", role)
            .field("password", &password.as_ref().map(|_| "***"))
            .finish()
    }
}

impl Postgres {
    /// Can it be asked like this?
    ///
    /// # Errors
    /// A text has a NUL in it, or there is a password without a role.
    pub fn validate(&self) -> Result<(), Invalid> {
        let nul = |text: &str| text.contains('\0');
        if nul(&self.user) {
            return Err(Invalid::Nul { what: "user", text: self.user.escape_debug().to_string() });
        }
        if let Some(text) = self.database.as_deref().filter(|text| nul(text)) {
            return Err(Invalid::Nul { what: "database", text: text.escape_debug().to_string() });
        }
        if self.password.as_deref().is_some_and(nul) {
            return Err(Invalid::Nul { what: "password", text: "***".into() });
        }
        if self.password.is_some() && self.role.is_none() {
            let remedy =
                "say which role it must have, or leave the password out: without a role nobody logs in";
            return Err(Invalid::Lacks { what: "password", needs: "role", remedy });
        }
        Ok(())
    }

    /// Asks.
    ///
    /// # Errors
    /// Why it isn't well.
    pub async fn check(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let mut peer = Peer::new(stream);
        peer.send(&message::startup(&self.user, self.database.as_deref())).await?;
        match self.role {
            Some(role) => {
                login::log_in(&mut peer, &self.user, self.password.as_deref()).await?;
                has_role(&mut peer, role).await
            }
            None => takes_logins(&mut peer).await,
        }
    }
}

/// Is it there for clients, whoever they are?
async fn takes_logins<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>) -> Result<(), String> {
    loop {
        match Message::next(peer).await? {
            Message { kind: b'R', body } => {
                if login::is_request(&body)? {
                    return Ok(());
                }
            }
            Message { kind: b'E', body } => {
                let refusal = Refusal::of(&body);
                return if refusal.of_server() { Err(refusal.words()) } else { Ok(()) };
            }
            // It let the user in: the session is ended as clients end it, once it is there.
            Message { kind: b'Z', .. } => {
                peer.leave(message::TERMINATE).await;
                return Ok(());
            }
            other => other.of_login()?,
        }
    }
}

/// Asks what it is, and ends the session.
async fn has_role<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>, wanted: Role) -> Result<(), String> {
    peer.send(&message::query("SELECT pg_is_in_recovery()")).await?;
    let mut is = None;
    loop {
        match Message::next(peer).await? {
            Message { kind: b'D', body } => is = Some(message::boolean(&body)?),
            Message { kind: b'E', body } => return Err(Refusal::of(&body).words()),
            Message { kind: b'Z', .. } => break,
            other => other.of_query()?,
        }
    }
    peer.leave(message::TERMINATE).await;
    let is = match is {
        Some(true) => Role::Standby,
        Some(false) => Role::Primary,
        None => return Err("answers pg_is_in_recovery() without a row".into()),
    };
    if is == wanted { Ok(()) } else { Err(format!("is {}, not {}", is.words(), wanted.words())) }
}

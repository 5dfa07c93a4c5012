//! Redis, and what speaks as it does (Valkey, KeyDB): RESP2,
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Invalid,
    peer::Peer,
    text::{excerpt, message},
};

/// What a server of a replicated set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Master,
    /// Follows a master.
    Replica,
}

impl Role {
    /// As in the `role:` line of `INFO replication`.
    const fn wire(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "slave",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Master => "a master",
            Self::Replica => "a replica",
        }
    }
}

/// Asks `PING`, and with a role `INFO replication`; `AUTH` comes first if there is a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// The password; it goes over the network as it is.
    pub password: Option<String>,
    /// The ACL user (Redis 6); `None`: the default one.
    pub user: Option<String>,
    /// What it must be; `None`: either.
    pub role: Option<Role>,
}

/// Without the password.
impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password, user, role } = self;
        let password = password.as_ref().map(|_| "***");
        f.debug_struct("Redis").field("password", &password).field("user", user).field("role", role).finish()
    }
}

impl Redis {
    /// Can it be asked like this?
    ///
    /// # Errors
    /// There is a user without a password.
    pub const fn validate(&self) -> Result<(), Invalid> {
        if self.user.is_some() && self.password.is_none() {
            let remedy = "add the user's password, or leave the user out";
            return Err(Invalid::Lacks { what: "user", needs: "password", remedy });
        }
        Ok(())
    }

    /// Asks.
    ///
    /// # Errors
    /// Why it isn't well.
    pub async fn check(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let mut peer = Peer::new(stream);
        if let Some(password) = &self.password {
            let words: Vec<&str> = match &self.user {
                Some(user) => vec!["AUTH", user, password],
                None => vec!["AUTH", password],
            };
            answered(&mut peer, &words, "AUTH", "+OK", Some(password)).await?;
        }
        answered(&mut peer, &["PING"], "PING", "+PONG", None).await?;
        match self.role {
            Some(role) => has_role(&mut peer, role).await,
            None => Ok(()),
        }
    }
}

/// A command, as an array of bulk strings, which carry any bytes.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Sends a command that is answered by one line. `secret`: isn't told, should the answer repeat it.
async fn answered<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut Peer<S>,
    words: &[&str],
    what: &str,
    good: &str,
    secret: Option<&String>,
) -> Result<(), String> {
    peer.send(&command(words)).await?;
    let answer = line(peer).await?;
    if answer == good.as_bytes() {
        return Ok(());
    }
    let shown = match secret {
        Some(secret) => without(&answer, secret.as_bytes()),
        None => answer,
    };
    Err(refusal(what, &shown))
}

/// An answer with asterisks in the place of a secret: a server that doesn't know a command repeats its arguments.
fn without(answer: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(secret).filter(|_| !secret.is_empty()) {
            Some(after) => {
                shown.extend_from_slice(b"***");
                rest = after;
            }
            None => {
                shown.push(*byte);
                rest = &rest[1..];
            }
        }
    }
    shown
}

/// The next line, without its end.
async fn line<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>) -> Result<Vec<u8>, String> {
    loop {
        if let Some(end) = peer.came().windows(2).position(|two| two == b"\r\n") {
            let mut line = peer.take(end + 2);
            line.truncate(end);
            return Ok(line);
        }
        if !peer.more().await? {
            return Err(peer.closed());
        }
    }
}

/// Why this answer isn't a good one.
fn refusal(what: &str, answer: &[u8]) -> String {
    let shown = excerpt(answer);
    let Some(error) = answer.strip_prefix(b"-") else {
        return format!("answers {what} with {shown}; is it Redis?");
    };
    let shown = message(error);
    match error.split(|b| *b == b' ').next().unwrap_or_default() {
        b"NOAUTH" => format!("wants a password, and the check has none: {shown}"),
        b"LOADING" => format!("is loading its data: {shown}"),
        b"MASTERDOWN" => format!("has lost its master: {shown}"),
        _ => format!("refuses {what}: {shown}"),
    }
}

/// Asks what it is. The answer is a bulk string: its length, and lines of `key:value`.
async fn has_role<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>, wanted: Role) -> Result<(), String> {
    const WHAT: &str = "INFO replication";
    peer.send(&command(&["INFO", "replication"])).await?;
    let head = line(peer).await?;
    let length =
        head.strip_prefix(b"$").and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let Some(mut left) = length else { return Err(refusal(WHAT, &head)) };
    // The role comes first, so that a long list of replicas needn't be read.
    while left > 0 {
        let line = line(peer).await?;
        left = left.saturating_sub(line.len() + 2);
        if let Some(role) = line.strip_prefix(b"role:") {
            return if role == wanted.wire().as_bytes() {
                Ok(())
            } else {
                let is =
                    [Role::Master, Role::Replica].into_iter().find(|other| other.wire().as_bytes() == role);
                let is = is.map_or_else(|| excerpt(role), |role| role.words().into());
                Err(format!("is {is}, not {}", wanted.words()))
            };
        }
    }
    Err(format!("answers {WHAT} without a role; is it Redis?"))
}

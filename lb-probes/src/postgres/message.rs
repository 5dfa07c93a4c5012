//! Messages: a letter, a length, a body. <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use lb_text::escape;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    peer::{MOST_READ, Peer},
    text::{self, excerpt},
};

/// Ends a session.
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Protocol 3.0.
const VERSION: u32 = 3 << 16;

/// The first message: who wants in, and where.
pub fn startup(user: &str, database: Option<&str>) -> Vec<u8> {
    let mut body = VERSION.to_be_bytes().to_vec();
    let named = [("user", Some(user)), ("database", database), ("application_name", Some("flowpin"))];
    for (name, value) in named {
        let Some(value) = value else { continue };
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    prefixed(None, &body)
}

/// A message of the client's.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    prefixed(Some(kind), body)
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// With its letter, and its length, which counts itself but not the letter.
fn prefixed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message of a check is short");
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A message of the server's.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// Reads the next one.
    ///
    /// # Errors
    /// None came, or something that isn't one.
    pub async fn next<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>) -> Result<Self, String> {
        // Other protocols' answers have a length here that never comes.
        const LETTERS: &[u8] = b"RKSNEZTDCIv";
        while peer.came().is_empty() {
            if !peer.more().await? {
                return Err(peer.closed());
            }
        }
        let kind = peer.came()[0];
        if !LETTERS.contains(&kind) {
            return Err(format!("answers {}; is it PostgreSQL?", excerpt(peer.came())));
        }
        let head = peer.exactly(5).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        match usize::try_from(length) {
            Ok(length @ 4..=MOST_READ) => Ok(Self { kind, body: peer.exactly(length - 4).await? }),
            _ => Err(format!("answers {} (a message of {length} bytes); is it PostgreSQL?", excerpt(&head))),
        }
    }

    /// What may come besides while a user logs in: parameters, the key for cancelling, notices, the version.
    ///
    /// # Errors
    /// Anything else.
    pub fn of_login(&self) -> Result<(), String> {
        self.one_of(b"SKNv", "a login")
    }

    /// What may come besides in answer to a query: its columns, its end, notices, parameters.
    ///
    /// # Errors
    /// Anything else.
    pub fn of_query(&self) -> Result<(), String> {
        self.one_of(b"TCNS", "a query")
    }

    fn one_of(&self, kinds: &[u8], what: &str) -> Result<(), String> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(format!("answers {what} with message {}", excerpt(&[self.kind])))
    }
}

/// The one column of a row, as text: `t` or `f`.
///
/// # Errors
/// The row is another one.
pub fn boolean(row: &[u8]) -> Result<bool, String> {
    match row {
        [0, 1, 0, 0, 0, 1, b't'] => Ok(true),
        [0, 1, 0, 0, 0, 1, b'f'] => Ok(false),
        _ => Err(format!("answers pg_is_in_recovery() with the row {}", excerpt(row))),
    }
}

/// An ErrorResponse.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    severity: Vec<u8>,
    code: Vec<u8>,
    text: Vec<u8>,
}

impl Refusal {
    /// From its fields: a letter and a text each.
    pub fn of(body: &[u8]) -> Self {
        let mut refusal = Self::default();
        for field in body.split(|b| *b == 0) {
            match field.split_first() {
                Some((b'S', text)) => refusal.severity = text.into(),
                Some((b'C', text)) => refusal.code = text.into(),
                Some((b'M', text)) => refusal.text = text.into(),
                _ => {}
            }
        }
        refusal
    }

    /// Does it tell of the server, not of who wants in? By the classes of
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>: 53 insufficient resources, 57 operator
    /// intervention (it starts up or shuts down), 58 and F0 system and configuration, XX internal.
    pub fn of_server(&self) -> bool {
        matches!(self.code.get(..2), Some(b"53" | b"57" | b"58" | b"F0" | b"XX") | None)
    }

    /// `FATAL 57P03: the database system is starting up`.
    pub fn words(&self) -> String {
        if self.code.is_empty() {
            return format!(
                "answers with an error without a code, {}; is it PostgreSQL?",
                excerpt(&self.text)
            );
        }
        let (severity, code) = (short(&self.severity), short(&self.code));
        format!("{severity} {code}: {}", text::message(&self.text))
    }
}

/// Severities and codes are short words.
fn short(text: &[u8]) -> String {
    escape(&text[..text.len().min(12)])
}

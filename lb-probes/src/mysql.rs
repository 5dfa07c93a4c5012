//! MySQL and MariaDB: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Invalid,
    peer::{MOST_READ, Peer},
    text::{excerpt, message},
};

/// Reads the greeting and logs in, without a password.
///
/// Without a user it logs in as `flowpin` and it is as good if that user is refused (SQLSTATE class 28): this takes
/// no account, but servers log refused logins. With a user, the user must be let in. For that, have one without
/// password and rights: `CREATE USER flowpin@'10.0.0.%'`, from the addresses of the nodes.
///
/// Why a login, if the greeting would do? A server counts connections that break off before a login is answered.
/// After `max_connect_errors` of them in a row (100 by default) it refuses the host: error 1129, until somebody
/// flushes its host cache. A `COM_QUIT` instead of a login counts as well, a refused login doesn't, and one that
/// succeeds sets the count to 0 (seen with MariaDB 10.11, `performance_schema.host_cache`). A session is ended by
/// `COM_QUIT`, else it would count as an aborted one (`Aborted_clients`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MySql {
    /// Who logs in, without a password, and must be let in; `None`: anybody.
    pub user: Option<String>,
}

/// Who logs in if it doesn't matter who.
const ANYBODY: &str = "flowpin";

impl MySql {
    /// Can it be asked like this?
    ///
    /// # Errors
    /// The user has a NUL in it.
    pub fn validate(&self) -> Result<(), Invalid> {
        match &self.user {
            Some(user) if user.contains('\0') => {
                Err(Invalid::Nul { what: "user", text: user.escape_debug().to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// Why it isn't well.
    pub async fn check(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let mut peer = Peer::new(stream);
        let greeting = packet(&mut peer).await?;
        greeted(&greeting.body)?;
        let login = login(self.user.as_deref().unwrap_or(ANYBODY));
        peer.send(&greeting.answered_by(login).bytes()).await?;
        let mut answer = packet(&mut peer).await?;
        if let [SWITCH, method @ ..] = &answer.body[..] {
            peer.send(&answer.answered_by(no_password(method)).bytes()).await?;
            answer = packet(&mut peer).await?;
        }
        match &answer.body[..] {
            [OK, ..] => {
                peer.leave(&Packet { number: 0, body: vec![COM_QUIT] }.bytes()).await;
                Ok(())
            }
            [ERROR, error @ ..] => match Refusal::of(error)? {
                refusal if self.user.is_none() && refusal.of_user() => Ok(()),
                refusal => Err(refusal.words()),
            },
            other => Err(format!("answers the login with {}", excerpt(other))),
        }
    }
}

/// Ends a session.
const COM_QUIT: u8 = 1;
/// First bytes of a server's packets.
const OK: u8 = 0;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// The one version of the protocol.
const VERSION: u8 = 10;

/// A packet: length (3 bytes, little endian), number, body.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    number: u8,
    body: Vec<u8>,
}

impl Packet {
    /// The next one of the same exchange.
    fn answered_by(&self, body: Vec<u8>) -> Self {
        Self { number: self.number.wrapping_add(1), body }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).expect("a packet of a check is short").to_le_bytes();
        [&length[..3], &[self.number], &self.body].concat()
    }
}

async fn packet<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>) -> Result<Packet, String> {
    let head = peer.exactly(4).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    if !(1..=MOST_READ).contains(&length) {
        return Err(format!("answers {} (a packet of {length} bytes); is it MySQL?", excerpt(&head)));
    }
    Ok(Packet { number: head[3], body: peer.exactly(length).await? })
}

/// Is this a greeting?
fn greeted(body: &[u8]) -> Result<(), String> {
    match body {
        [ERROR, error @ ..] => Err(Refusal::of(error)?.words()),
        // The server's version ends with a NUL; its number for the connection, and more, follows.
        [VERSION, rest @ ..] if rest.iter().position(|b| *b == 0).is_some_and(|end| rest.len() > end + 4) => {
            Ok(())
        }
        [9, ..] => Err("speaks protocol 9, of before MySQL 4.1".into()),
        _ => Err(format!("greets with {}; is it MySQL?", excerpt(body))),
    }
}

/// A HandshakeResponse41 without password.
fn login(user: &str) -> Vec<u8> {
    // CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
    const CAPABILITIES: u32 = 1 | 1 << 9 | 1 << 15 | 1 << 19;
    const MOST: u32 = 1 << 24;
    const UTF8: u8 = 33;
    let mut body = Vec::new();
    body.extend_from_slice(&CAPABILITIES.to_le_bytes());
    body.extend_from_slice(&MOST.to_le_bytes());
    body.push(UTF8);
    body.extend_from_slice(&[0; 23]);
    body.extend_from_slice(user.as_bytes());
    // The end of the user, and the length of the password's hash.
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(b"mysql_native_password\0");
    body
}

/// How to say that there is no password, by the method that the server wants. By one that isn't known here the user
/// is refused: that is for the server to say, since to break off would count against the host.
fn no_password(method: &[u8]) -> Vec<u8> {
    match method.split(|b| *b == 0).next() {
        Some(b"caching_sha2_password" | b"sha256_password") => vec![0],
        _ => Vec::new(),
    }
}

/// An ERR packet.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: u16,
    /// Left out before the login.
    state: Option<[u8; 5]>,
    text: Vec<u8>,
}

impl Refusal {
    /// Without its first byte.
    fn of(error: &[u8]) -> Result<Self, String> {
        let Some((code, rest)) = error.split_first_chunk() else {
            return Err(format!("answers with an error without a number, {}; is it MySQL?", excerpt(error)));
        };
        let state = rest.strip_prefix(b"#").and_then(|rest| rest.split_first_chunk());
        let (state, text) = state.map_or((None, rest), |(state, text)| (Some(*state), text));
        Ok(Self { code: u16::from_le_bytes(*code), state, text: text.into() })
    }

    /// Does it tell of who wants in, not of the server? Class 28 of SQLSTATE: invalid authorization.
    fn of_user(&self) -> bool {
        self.state.is_some_and(|state| state.starts_with(b"28"))
    }

    /// `error 1040 (08004): Too many connections`.
    fn words(&self) -> String {
        let state = self.state.map(|state| format!(" ({})", message(&state))).unwrap_or_default();
        format!("error {}{state}: {}", self.code, message(&self.text))
    }
}

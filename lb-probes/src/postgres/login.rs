//! How a user is let in.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    message::{Message, Refusal, message},
    scram::Scram,
};
use crate::{peer::Peer, text::excerpt};

/// The one mechanism for SASL that is spoken here.
const MECHANISM: &[u8] = b"SCRAM-SHA-256";

/// What the server asks for, by the first four bytes of an authentication message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Nothing (more).
    Nothing,
    ClearText,
    Md5,
    /// Followed by mechanisms, of which one is to be picked.
    Sasl,
    SaslContinue,
    SaslFinal,
    /// Kerberos, GSS, SSPI, and what may come.
    Other(u32),
}

impl Request {
    /// And what follows.
    fn of(body: &[u8]) -> Result<(Self, &[u8]), String> {
        let Some((number, rest)) = body.split_first_chunk() else {
            return Err(format!("asks for authentication by {}; is it PostgreSQL?", excerpt(body)));
        };
        let request = match u32::from_be_bytes(*number) {
            0 => Self::Nothing,
            3 => Self::ClearText,
            5 => Self::Md5,
            10 => Self::Sasl,
            11 => Self::SaslContinue,
            12 => Self::SaslFinal,
            other => Self::Other(other),
        };
        Ok((request, rest))
    }
}

/// Does it ask for something?
///
/// # Errors
/// The message isn't whole.
pub fn is_request(body: &[u8]) -> Result<bool, String> {
    Ok(Request::of(body)?.0 != Request::Nothing)
}

/// Answers what is asked, until queries are taken.
///
/// # Errors
/// The user isn't let in, or is asked for something that isn't spoken here.
pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut Peer<S>,
    user: &str,
    password: Option<&str>,
) -> Result<(), String> {
    let needed = || {
        password.ok_or_else(|| {
            format!("wants a password of {}, and the check has none", excerpt(user.as_bytes()))
        })
    };
    loop {
        let body = match Message::next(peer).await? {
            Message { kind: b'R', body } => body,
            Message { kind: b'E', body } => return Err(Refusal::of(&body).words()),
            Message { kind: b'Z', .. } => return Ok(()),
            other => {
                other.of_login()?;
                continue;
            }
        };
        match Request::of(&body)? {
            (Request::Nothing, _) => {}
            (Request::ClearText, _) => {
                peer.send(&message(b'p', &[needed()?.as_bytes(), b"\0"].concat())).await?;
            }
            (Request::Sasl, mechanisms) => {
                if !mechanisms.split(|b| *b == 0).any(|mechanism| mechanism == MECHANISM) {
                    let offered = excerpt(mechanisms);
                    return Err(format!("wants SASL by {offered}; checks speak SCRAM-SHA-256"));
                }
                scram(peer, needed()?).await?;
            }
            (other, _) => return Err(unspoken(other)),
        }
    }
}

/// A request that can't be answered (here).
fn unspoken(request: Request) -> String {
    let spoken = "let the user in by scram-sha-256 or trust in pg_hba.conf";
    match request {
        Request::Md5 => format!("wants the password by MD5, which checks don't speak; {spoken}"),
        Request::Other(number) => {
            format!(
                "wants authentication {number} (Kerberos, GSS or SSPI), which checks don't speak; {spoken}"
            )
        }
        Request::Nothing
        | Request::ClearText
        | Request::Sasl
        | Request::SaslContinue
        | Request::SaslFinal => "goes on with a login by SASL that wasn't begun".into(),
    }
}

/// Proves that the password is known, and has the server prove that it knows it too.
async fn scram<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>, password: &str) -> Result<(), String> {
    let scram = Scram::begin();
    let first = scram.first();
    let length = u32::try_from(first.len()).expect("it is a nonce, and some letters");
    let body = [MECHANISM, b"\0", &length.to_be_bytes(), first.as_bytes()].concat();
    peer.send(&message(b'p', &body)).await?;
    let challenge = sasl(peer, Request::SaslContinue).await?;
    // Thousands of hashes, on a thread that may take its time.
    let password = password.to_owned();
    let answered = tokio::task::spawn_blocking(move || scram.answer(&password, &challenge));
    let (answer, expected) = answered.await.map_err(|e| format!("the check was ended: {e}"))??;
    peer.send(&message(b'p', answer.as_bytes())).await?;
    let proof = sasl(peer, Request::SaslFinal).await?;
    if proof == expected.as_bytes() {
        return Ok(());
    }
    Err("doesn't know the password itself: is it the right server?".into())
}

/// The next message of the exchange.
async fn sasl<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut Peer<S>,
    wanted: Request,
) -> Result<Vec<u8>, String> {
    loop {
        match Message::next(peer).await? {
            Message { kind: b'R', body } => match Request::of(&body)? {
                (request, rest) if request == wanted => return Ok(rest.into()),
                _ => return Err(format!("breaks off the login by SCRAM-SHA-256 with {}", excerpt(&body))),
            },
            Message { kind: b'E', body } => return Err(Refusal::of(&body).words()),
            other => other.of_login()?,
        }
    }
}

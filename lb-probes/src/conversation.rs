//! A conversation that the operator writes: what is sent, and what must come.

use lb_text::escape;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Invalid,
    peer::Peer,
    text::{excerpt, unescape},
};

/// What an answer must contain.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These bytes.
    Contains(Vec<u8>),
    /// Something that this matches.
    Matches(Regex),
}

impl Pattern {
    /// The bytes that `text` stands for ([`unescape`]).
    ///
    /// # Errors
    /// The text has an escape that means nothing, or is empty.
    pub fn contains(text: &str) -> Result<Self, Invalid> {
        match unescape(text)? {
            bytes if bytes.is_empty() => Err(Invalid::AlwaysMatches(text.into())),
            bytes => Ok(Self::Contains(bytes)),
        }
    }

    /// Something that the regular expression `text` matches, of bytes: `(?-u)\xff` is one byte, `(?s-u:.)` any one.
    ///
    /// # Errors
    /// It isn't a regular expression, or one that matches an empty answer.
    pub fn matches(text: &str) -> Result<Self, Invalid> {
        match Regex::new(text) {
            Ok(regex) if regex.is_match(b"") => Err(Invalid::AlwaysMatches(text.into())),
            Ok(regex) => Ok(Self::Matches(regex)),
            Err(error) => Err(Invalid::Regex { text: text.into(), why: last_line(&error) }),
        }
    }

    fn found(&self, answer: &[u8]) -> bool {
        match self {
            Self::Contains(bytes) => answer.windows(bytes.len().max(1)).any(|window| window == bytes),
            Self::Matches(regex) => regex.is_match(answer),
        }
    }

    /// In a reason.
    fn words(&self) -> String {
        match self {
            Self::Contains(bytes) => excerpt(bytes),
            Self::Matches(regex) => format!("/{}/", escape(regex.as_str().as_bytes())),
        }
    }
}

/// The crate shows the expression with a mark below the fault; what is wrong is in the last line.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).into()
}

/// Regular expressions are the same if they are written the same.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Contains(one), Self::Contains(other)) => one == other,
            (Self::Matches(one), Self::Matches(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for Pattern {}

/// One step of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Reads until this is found in what came since the last [`Step::Send`] (or since the beginning), the backend
    /// closes, or [`MOST_READ`](crate::MOST_READ) bytes came. Several in a row look at the same answer, in any order.
    Expect(Pattern),
}

/// What is said to a backend and what it must answer, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    steps: Vec<Step>,
}

impl Conversation {
    /// Of these steps.
    ///
    /// # Errors
    /// Nothing is expected, or a step sends nothing.
    pub fn new(steps: Vec<Step>) -> Result<Self, Invalid> {
        if steps.iter().any(|step| matches!(step, Step::Send(bytes) if bytes.is_empty())) {
            return Err(Invalid::SendsNothing);
        }
        if !steps.iter().any(|step| matches!(step, Step::Expect(_))) {
            return Err(Invalid::ExpectsNothing);
        }
        Ok(Self { steps })
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Holds it.
    ///
    /// # Errors
    /// Why the backend isn't well: what was expected and what came.
    pub async fn check(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let mut peer = Peer::new(stream);
        for step in &self.steps {
            match step {
                Step::Send(bytes) => {
                    peer.forget();
                    peer.send(bytes).await?;
                }
                Step::Expect(pattern) => expect(&mut peer, pattern).await?,
            }
        }
        Ok(())
    }
}

async fn expect<S: AsyncRead + AsyncWrite + Unpin>(
    peer: &mut Peer<S>,
    pattern: &Pattern,
) -> Result<(), String> {
    while !pattern.found(peer.came()) {
        let ended = match peer.more().await {
            Ok(true) => continue,
            Ok(false) => peer.closed(),
            Err(why) => why,
        };
        return Err(format!("{ended}; {} was expected", pattern.words()));
    }
    Ok(())
}

//! Content checks: the conversations by which a health check sees whether a backend is really well.
//!
//! Each check has an `async fn check(&self, stream)`. It gets a connected stream and answers `Ok(())`, or the reason
//! why the backend isn't well: one line, without control characters, for operators.
//!
//! | | what it asks |
//! | --- | --- |
//! | [`Conversation`] | that the backend answers what is sent with what is expected |
//! | [`Redis`] | `PING`, and whether it is the master or a replica |
//! | [`Postgres`] | whether it takes logins, and whether it is the primary or a standby |
//! | [`MySql`] | whether it greets and takes logins |
//!
//! Who connects, from where, and how long a check may take are the caller's; over [`Until`], a check whose time is
//! over says what had come. Whatever comes, a check never panics and reads in bounds ([`MOST_READ`]).
//!
//! The caller should drop the stream, not reset it (`SO_LINGER` of 0): databases log a reset as a lost client, and
//! MySQL counts it as an aborted connection.

mod conversation;
mod mysql;
mod peer;
pub mod postgres;
pub mod redis;
mod text;
mod until;

use thiserror::Error;

pub use lb_text::escape;

pub use self::{
    conversation::{Conversation, Pattern, Step},
    mysql::MySql,
    peer::MOST_READ,
    postgres::Postgres,
    redis::Redis,
    text::unescape,
    until::Until,
};

/// What can't be a check, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A backslash is followed by something that has no meaning.
    #[error("`{text}`: {what} means nothing; use \\r \\n \\t \\0 \\xNN, and \\\\ for a backslash")]
    Escape {
        /// All of the text.
        text: String,
        /// The part that means nothing.
        what: String,
    },
    /// Not a regular expression.
    #[error("`{text}` is not a regular expression: {why}; see https://docs.rs/regex for what can be written")]
    Regex {
        /// The expression.
        text: String,
        /// What is wrong with it, in one line.
        why: String,
    },
    /// A pattern that is found in an empty answer.
    #[error(
        "`{0}` matches even if nothing comes, so that the check is always good; write what the backend must answer"
    )]
    AlwaysMatches(String),
    /// A step sends nothing.
    #[error("nothing is sent; write what is to be sent, or leave the step out")]
    SendsNothing,
    /// A conversation without an [`Step::Expect`].
    #[error("the conversation expects nothing; say what the backend must answer, or check by tcp")]
    ExpectsNothing,
    /// A name or password that the protocol can't carry.
    #[error("{what} `{text}` contains a NUL character, which the protocol can't carry; leave it out")]
    Nul {
        /// Which one.
        what: &'static str,
        /// Its value; of a password: asterisks.
        text: String,
    },
    /// Something is there that takes something else.
    #[error("there is a {what} but no {needs}; {remedy}")]
    Lacks {
        /// What is there.
        what: &'static str,
        /// What isn't.
        needs: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

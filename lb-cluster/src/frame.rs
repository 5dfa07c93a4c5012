//! What agents and owners say to each other. Encoded with postcard, whose format is documented and stable; the first
//! byte is the version.
//!
//! Counts are absolute, and so a frame that is lost, doubled or late does no harm: the next one says it all again.

use serde::{Deserialize, Serialize};

use crate::{BackendKey, NodeId, ServiceKey};

/// Version of the frames. Others are refused: what they say can't be known.
pub const VERSION: u8 = 1;

/// Longest frame, bytes: what NATS takes as it comes. Room for the counts of the largest service and acknowledgements
/// of 30,000 nodes at once.
pub const MAX_FRAME: usize = 1 << 20;

/// Longest question and answer, bytes: a few lines of text, or a number for each backend of the largest service.
pub const MAX_TALK: usize = 512 << 10;

/// Most backends of a service in a frame, the most that a pool has.
pub const MAX_BACKENDS: usize = lb_common::abi::limits::MAX_BACKENDS_PER_SERVICE as usize;

/// Longest name of a node or cluster, bytes: that of a DNS name.
pub const MAX_NAME: usize = 253;

/// One message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// Agent to owner, on meeting it and once a second: here I am.
    Hello(Hello),
    /// Agent to owner: tell me of this service from now on. Answered with whole [`Totals`].
    Subscribe(Subscribe),
    /// Agent to owner: what I have.
    Report(Report),
    /// Owner to its subscribers: what all have. Whole, to one of them that asked.
    Totals(Totals),
    /// Agent to owner, or owner to agent: something is missing, please say all of it.
    Ask(Ask),
    /// Agent to owner: forget me.
    Leave(Leave),
    /// Owner to all that know it, four times a second: here I am.
    Alive(Alive),
    /// Node to node, on an operator's behalf: do this, or say that. No state machine's; answered with [`Frame::Answer`].
    Question(Talk),
    /// To a question, once.
    Answer(Talk),
}

/// An agent presents itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The node's name, 1..=[`MAX_NAME`] bytes.
    pub node: String,
    /// Whose cluster it is of, 1..=[`MAX_NAME`] bytes.
    pub cluster: String,
    /// Which life of the agent's it is; see [`Report::epoch`].
    pub epoch: u64,
}

/// An agent has flows of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// Who.
    pub node: NodeId,
    /// To what.
    pub service: ServiceKey,
}

/// A node's own connections with a service's backends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub node: NodeId,
    /// With whose backends.
    pub service: ServiceKey,
    /// Which life of the agent's it is; a later one has a greater number: microseconds of the wall clock at its
    /// start.
    pub epoch: u64,
    /// Number of the report, within the epoch. From 1 on.
    pub seq: u64,
    /// The report that this one adds to; 0: to none, what isn't listed has no connections.
    pub base: u64,
    /// How many backends of the service take new flows.
    pub pool: u32,
    /// Counts that may have changed since `base`.
    pub counts: Vec<Own>,
}

/// One count of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Own {
    /// With whom.
    pub backend: BackendKey,
    /// The node's open connections.
    pub open: u32,
}

/// Connections of all nodes with a service's backends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Who has added them up.
    pub owner: NodeId,
    /// Which life of the owner's it is, like [`Report::epoch`].
    pub epoch: u64,
    /// With whose backends.
    pub service: ServiceKey,
    /// Number of this state of the totals. What is known at a number is always the same.
    pub seq: u64,
    /// Everything: what isn't listed has no connections. Otherwise what has changed since the number before.
    pub whole: bool,
    /// The owner hasn't been one for long; there may be nodes that it hasn't heard of yet.
    pub settling: bool,
    /// Connections opened a second. Finite, not negative.
    pub rate: f32,
    /// Time between totals at this rate, microseconds.
    pub gap: u32,
    /// Totals.
    pub counts: Vec<Total>,
    /// Which report of each node they contain, in order of nodes. Of nodes for which that has changed; of the one
    /// that asked, if it is whole.
    pub acks: Vec<Ack>,
}

/// One total.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Total {
    /// With whom.
    pub backend: BackendKey,
    /// Open connections of all nodes.
    pub open: u64,
}

/// The last report of a node that totals contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// Whose.
    pub node: NodeId,
    /// [`Report::epoch`]; 0: they contain nothing of this node's.
    pub epoch: u64,
    /// [`Report::seq`]; 0 with an epoch of 0.
    pub seq: u64,
}

/// Somebody has missed something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks: the agent for totals, the owner for a whole report.
    pub from: NodeId,
    /// Of which service.
    pub service: ServiceKey,
}

/// An agent has nothing to do with a service any more, or another is its owner now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leave {
    /// Who.
    pub node: NodeId,
    /// Of which service.
    pub service: ServiceKey,
    /// The life of the agent's, and its last report before: a later one counts nevertheless.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
}

/// An owner presents itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// Who.
    pub owner: NodeId,
    /// Which life of its it is.
    pub epoch: u64,
    /// An answer to a [`Hello`].
    pub greeting: Option<Greeting>,
}

/// A node is known to an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Who.
    pub node: NodeId,
    /// How often the owner had met somebody new when it met this node: if it is more than before, the node was
    /// forgotten in between.
    pub met: u64,
}

/// A question or an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Talk {
    /// Which question, among those of the one who asks.
    pub number: u64,
    /// What is asked or said, at most [`MAX_TALK`] bytes; the nodes know what it means.
    pub body: Vec<u8>,
}

/// A frame can't be read, or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Too long.
    #[error("a frame of {0} bytes: the limit is {MAX_FRAME}; is the other end Flowpin's?")]
    TooLong(usize),
    /// Nothing at all.
    #[error("an empty frame")]
    Empty,
    /// From another version.
    #[error(
        "a frame of version {0}: this is version {VERSION}; run the same version of Flowpin on all nodes"
    )]
    Version(u8),
    /// No frame.
    #[error("a frame that can't be read: {0}")]
    Malformed(postcard::Error),
    /// More than a frame.
    #[error("a frame with {0} bytes too many")]
    Trailing(usize),
    /// A name is missing or too long.
    #[error("a {what} name of {length} bytes: names have 1 to {MAX_NAME}")]
    Name {
        /// Whose name.
        what: &'static str,
        /// Its length.
        length: usize,
    },
    /// Too many backends.
    #[error("counts of {0} backends: a service has at most {MAX_BACKENDS}")]
    Backends(usize),
    /// Too much said at once.
    #[error("a question or answer of {0} bytes: they have at most {MAX_TALK}")]
    Talk(usize),
    /// No rate at all.
    #[error("a rate of {0} connections a second: it has to be a number from 0 on")]
    Rate(String),
}

impl Frame {
    /// The frame in bytes.
    ///
    /// # Errors
    /// It isn't one that [`Frame::decode`] would take.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check()?;
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(FrameError::Malformed)?;
        length_allowed(bytes.len())?;
        Ok(bytes)
    }

    /// The frame that these bytes are, all of them. Any bytes at all may be tried.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        length_allowed(bytes.len())?;
        let (version, body) = bytes.split_first().ok_or(FrameError::Empty)?;
        if *version != VERSION {
            return Err(FrameError::Version(*version));
        }
        let (frame, rest) = postcard::take_from_bytes::<Self>(body).map_err(FrameError::Malformed)?;
        if !rest.is_empty() {
            return Err(FrameError::Trailing(rest.len()));
        }
        frame.check()?;
        Ok(frame)
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Hello(hello) => {
                for (what, name) in [("node's", &hello.node), ("cluster's", &hello.cluster)] {
                    if !(1..=MAX_NAME).contains(&name.len()) {
                        return Err(FrameError::Name { what, length: name.len() });
                    }
                }
                Ok(())
            }
            Self::Report(report) => backends_allowed(report.counts.len()),
            Self::Totals(totals) if !(totals.rate.is_finite() && totals.rate >= 0.0) => {
                Err(FrameError::Rate(totals.rate.to_string()))
            }
            Self::Totals(totals) => backends_allowed(totals.counts.len()),
            Self::Question(talk) | Self::Answer(talk) if talk.body.len() > MAX_TALK => {
                Err(FrameError::Talk(talk.body.len()))
            }
            Self::Question(_) | Self::Answer(_) => Ok(()),
            Self::Subscribe(_) | Self::Ask(_) | Self::Leave(_) | Self::Alive(_) => Ok(()),
        }
    }
}

/// May a frame have so many bytes? For streams, to be asked before any memory is set aside.
///
/// # Errors
/// It may not.
pub const fn length_allowed(length: usize) -> Result<(), FrameError> {
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(()) }
}

const fn backends_allowed(backends: usize) -> Result<(), FrameError> {
    if backends > MAX_BACKENDS { Err(FrameError::Backends(backends)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

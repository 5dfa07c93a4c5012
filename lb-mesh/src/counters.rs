//! What was refused, and how much has come and gone.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Why a connection or a frame was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The other end doesn't speak TLS 1.3, or didn't get through the handshake in time.
    Handshake,
    /// It has no certificate, an expired one, or one of another authority.
    Certificate,
    /// Its certificate is of another cluster, or not of one node.
    Name,
    /// Too many connections at once: of those that haven't shown a certificate yet, or of one node.
    Connections,
    /// What came was no frame, or none of this version.
    Malformed,
    /// A frame speaks for another node than the one that sent it.
    ForAnother,
    /// Too many frames, or bytes, a second from one node.
    Flood,
    /// A frame that can't be taken for another reason: too many services or backends, or it is for the other side.
    Frame,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Handshake,
        Self::Certificate,
        Self::Name,
        Self::Connections,
        Self::Malformed,
        Self::ForAnother,
        Self::Flood,
        Self::Frame,
    ];

    /// As a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Name => "name",
            Self::Connections => "connections",
            Self::Malformed => "malformed",
            Self::ForAnother => "for_another",
            Self::Flood => "flood",
            Self::Frame => "frame",
        }
    }
}

/// How often what was refused since the start.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Reason::ALL.len()]);

impl Refusals {
    /// Counts one. How many that makes.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.0[reason as usize].fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn view(&self) -> BTreeMap<Reason, u64> {
        Reason::ALL.into_iter().map(|reason| (reason, self.0[reason as usize].load(Relaxed))).collect()
    }
}

/// What has come from a node, or from all, and gone to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames received, of those that were not refused unread.
    pub frames_in: u64,
    /// Their bytes, without those of TLS.
    pub bytes_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Their bytes, without those of TLS.
    pub bytes_out: u64,
    /// Frames that were to be sent and weren't: the node was too slow, or just gone. Harmless if they are few.
    pub dropped: u64,
    /// Frames refused.
    pub refused: u64,
}

/// A [`Traffic`] in the making.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// When anything was heard, milliseconds since the mesh began, plus 1; 0: never.
    pub(crate) heard: AtomicU64,
}

impl Meter {
    pub(crate) fn view(&self) -> Traffic {
        Traffic {
            frames_in: self.frames_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

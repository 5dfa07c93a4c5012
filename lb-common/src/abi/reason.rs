//! The one list of reasons for which a packet is refused or dropped: counter index, metric label, documentation.

/// Why a packet went no further. The value is the index in the `REASONS` map; the order is fixed, new ones go to the end.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A new flow for a service none of whose backends is eligible. TCP is answered with RST, UDP with port unreachable.
    NoBackend = 0,
    /// A new flow for a service whose eligible backends are all at `max_connections`. Answered like `NoBackend`.
    BackendsFull = 1,
    /// No room for another flow. Open connections are never evicted. TCP is answered with RST, UDP dropped.
    TableFull = 2,
    /// A TCP packet for a least-connections service that belongs to no flow and opens none. Answered with RST.
    Stray = 3,
    /// A RST for a service that belongs to no flow, or would end a connection past us that the backend knows by the same ports. Dropped: a RST is never
    /// answered.
    StrayReset = 4,
    /// A fragment of a packet to a VIP, or the first fragment of a reply. Dropped.
    Fragment = 5,
    /// A packet to a VIP with a header cut short, impossible lengths or impossible TCP flags. Dropped.
    Malformed = 6,
    /// A packet of a flow that was being removed at that instant. Dropped; the sender's retransmission gets through.
    FlowBusy = 7,
    /// Every backend tried already has a connection with this client address and port, by way of another VIP. TCP is
    /// answered with RST, UDP dropped.
    PortConflict = 8,
    /// The answer (RST, port unreachable) could not be made or was over the rate limit. Counted besides the reason itself.
    Unanswered = 9,
    /// A map said something impossible. Never seen; if it is, it is a bug.
    Internal = 10,
    /// A packet of a connection that the operator closed. Answered with RST.
    ConnectionClosed = 11,
    /// No room for another client with affinity: the flow was balanced as any other, and the client isn't remembered. Not a refusal.
    AffinityFull = 12,
    /// Source NAT: no address and port of ours is left towards the backend, or there is none at all, which a backend that reaches itself through
    /// a VIP needs. TCP is answered with RST, UDP dropped.
    NoSourcePort = 13,
    /// Direct server return: there is no way to the backend, or by layer 2 none without a router. Dropped.
    NoWay = 14,
    /// Direct server return: the packet, or the one that it is put in, is larger than the way to the backend takes. Answered with "fragmentation
    /// needed" or "packet too big".
    TooBig = 15,
    /// A new flow of a client that is in none of the service's source ranges. Dropped; a process of the node's gets `EPERM`.
    SourceNotAllowed = 16,
    /// A packet to a VIP, at a port or of a protocol that no service has there. TCP is answered with RST, UDP with port unreachable, others are dropped.
    NoService = 17,
    /// A new flow at a frontend with `scope = "local"`, none of whose backends on this node is eligible. Dropped.
    NoLocalBackend = 18,
    /// For the tests of upgrades: one that a later version has.
    #[cfg(feature = "next")]
    Next = 19,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 19 + cfg!(feature = "next") as usize;

    /// How many there is room for in the map, so that a new one changes no layout.
    pub const ROOM: usize = 64;

    /// All of them, by index.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NoBackend,
        Self::BackendsFull,
        Self::TableFull,
        Self::Stray,
        Self::StrayReset,
        Self::Fragment,
        Self::Malformed,
        Self::FlowBusy,
        Self::PortConflict,
        Self::Unanswered,
        Self::Internal,
        Self::ConnectionClosed,
        Self::AffinityFull,
        Self::NoSourcePort,
        Self::NoWay,
        Self::TooBig,
        Self::SourceNotAllowed,
        Self::NoService,
        Self::NoLocalBackend,
        #[cfg(feature = "next")]
        Self::Next,
    ];

    /// The metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::BackendsFull => "backends_full",
            Self::TableFull => "table_full",
            Self::Stray => "stray",
            Self::StrayReset => "stray_reset",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::FlowBusy => "flow_busy",
            Self::PortConflict => "port_conflict",
            Self::Unanswered => "unanswered",
            Self::Internal => "internal",
            Self::ConnectionClosed => "connection_closed",
            Self::AffinityFull => "affinity_full",
            Self::NoSourcePort => "no_source_port",
            Self::NoWay => "no_way",
            Self::TooBig => "too_big",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::NoService => "no_service",
            Self::NoLocalBackend => "no_local_backend",
            #[cfg(feature = "next")]
            Self::Next => NEXT.0,
        }
    }

    /// What the operator can do.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NoBackend => "add a backend, undrain one, or see why none is healthy",
            Self::BackendsFull => "raise max_connections or add backends",
            Self::TableFull => "raise conntrack.max_flows, or look for clients that leave flows behind",
            Self::Stray => "expected after the table was lost or an idle flow expired; the client reconnects",
            Self::StrayReset => "expected: the last word of a connection that is already gone",
            Self::Fragment => "send datagrams that fit the path MTU",
            Self::Malformed => "look at the sender, or for a scan",
            Self::FlowBusy => "none needed",
            Self::PortConflict => "give the services different backend ports, or the client more addresses",
            Self::Unanswered => "expected under a flood; otherwise look at the interface's headroom",
            Self::Internal => "report it, with the kernel's version",
            Self::ConnectionClosed => "none needed",
            Self::AffinityFull => "raise conntrack.max_clients, or shorten affinity timeouts",
            Self::NoSourcePort => "add addresses or ports to [snat]",
            Self::NoWay => "give the node a route to the backend; dsr-l2 wants it on a segment of the node's",
            Self::TooBig => {
                "expected: the sender sends smaller ones from then on; otherwise let ICMP errors through to it"
            }
            Self::SourceNotAllowed => {
                "expected; otherwise add the client's prefix to the service's source_ranges"
            }
            Self::NoService => "expected of a scan; otherwise add the port to the service",
            Self::NoLocalBackend => "expected: send to nodes that have a backend, or use scope = \"all\"",
            #[cfg(feature = "next")]
            Self::Next => NEXT.1,
        }
    }
}

/// Name and remedy.
#[cfg(feature = "next")]
const NEXT: (&str, &str) = ("next", "none needed");

const _: () = assert!(Reason::COUNT <= Reason::ROOM);

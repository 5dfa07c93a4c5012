//! The one list of reasons for which a packet is refused or dropped: counter index, metric label, meaning, remedy, answer. The table in
//! docs/reasons.md is made from it.

/// What the sender of a packet hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing: it is dropped, or goes on all the same.
    Nothing,
    /// TCP a RST; of others nothing.
    Reset,
    /// TCP a RST, UDP port unreachable.
    Refused,
    /// "Fragmentation needed", "packet too big".
    Size,
}

/// Rows: name and index, which stay as they are (new ones go to the end); the metric's label; the answer; what happened; what to do.
macro_rules! reasons {
    ($($(#[$attribute:meta])* $reason:ident = $index:literal, $name:literal, $answer:ident, $meaning:literal, $remedy:literal;)*) => {
        /// Why a packet went no further. The value is the index in the `REASONS` map.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Reason {
            $($(#[$attribute])* #[doc = $meaning] $reason = $index,)*
        }

        impl Reason {
            /// All of them, by index.
            pub const ALL: &[Self] = &[$($(#[$attribute])* Self::$reason,)*];

            /// The metric's label.
            pub const fn name(self) -> &'static str {
                match self { $($(#[$attribute])* Self::$reason => $name,)* }
            }

            /// What happened.
            pub const fn meaning(self) -> &'static str {
                match self { $($(#[$attribute])* Self::$reason => $meaning,)* }
            }

            /// What the operator can do.
            pub const fn remedy(self) -> &'static str {
                match self { $($(#[$attribute])* Self::$reason => $remedy,)* }
            }

            /// What the sender hears.
            pub const fn answer(self) -> Answer {
                match self { $($(#[$attribute])* Self::$reason => Answer::$answer,)* }
            }
        }
    };
}

#[rustfmt::skip]
reasons! {
    NoBackend = 0, "no_backend", Refused,
        "a new flow, and no backend of the service is eligible; answered with RST or port unreachable",
        "add a backend, undrain one";
    BackendsFull = 1, "backends_full", Refused,
        "all eligible backends are at `max_connections`, or the service is at `service_max_connections`; answered likewise",
        "raise the limit or add backends";
    TableFull = 2, "table_full", Reset,
        "no room for another flow; TCP is answered with RST. Or for another socket of a process of the node's, which gets \"connection refused\"",
        "raise `conntrack.max_flows` (takes effect with new maps); of sockets there may be 131,072";
    Stray = 3, "stray", Reset,
        "a TCP packet of no flow, for a least-connections service; answered with RST",
        "nothing: the client reconnects. Expected after the table was lost or an idle flow expired";
    StrayReset = 4, "stray_reset", Nothing,
        "a RST of no flow, or one that would end a connection past the VIP from the same port",
        "nothing: the last word of a connection that is gone, or the client making another attempt";
    Fragment = 5, "fragment", Nothing,
        "a fragment whose first hasn't come, or whose flow is gone",
        "expected now and then; many: packets are reordered on their way, or somebody floods";
    Malformed = 6, "malformed", Nothing,
        "a broken or impossible packet to a VIP",
        "look at the sender; scans look like this";
    FlowBusy = 7, "flow_busy", Nothing,
        "a packet of a flow that was being removed at that instant",
        "nothing: it is sent again";
    PortConflict = 8, "port_conflict", Reset,
        "the client has this port in use towards this backend by other ways, and no other port was found for it",
        "give the services different backend ports";
    Unanswered = 9, "unanswered", Nothing,
        "an answer could not be made, or was over the rate limit; counted besides the reason",
        "expected under a flood";
    Internal = 10, "internal", Nothing,
        "a map said something impossible",
        "report it";
    ConnectionClosed = 11, "connection_closed", Reset,
        "a packet of a connection that `connection close` has closed; answered with RST",
        "nothing";
    AffinityFull = 12, "affinity_full", Nothing,
        "no room for another client with affinity; its flow was balanced like any other. Not a refusal",
        "raise `conntrack.max_clients` (takes effect with new maps), or shorten affinity timeouts";
    NoSourcePort = 13, "no_source_port", Reset,
        "source NAT, and no address and port is left towards the backend, or there is none at all; TCP is answered with RST",
        "add addresses or ports to `[snat]`";
    NoWay = 14, "no_way", Nothing,
        "direct server return, and no way to the backend, or for `dsr-l2` only one with a router",
        "give the node a route; use `dsr-ipip` through routers";
    TooBig = 15, "too_big", Size,
        "direct server return, and a packet that doesn't fit; its sender is told the size that does",
        "expected now and then; otherwise let ICMP errors through to clients";
    SourceNotAllowed = 16, "source_not_allowed", Nothing,
        "a new flow of a client that is in none of the service's `source_ranges`, or in one of its `deny_ranges`; dropped",
        "expected; otherwise add the client's prefix, or take it out of `deny_ranges`";
    NoService = 17, "no_service", Refused,
        "a packet for a port, or by a protocol, that no frontend has at a VIP which isn't the node's own; refused",
        "expected of a scan; otherwise add the port";
    NoLocalBackend = 18, "no_local_backend", Nothing,
        "a new flow by a frontend with `scope = \"local\"`, and no backend of this node can take it; dropped",
        "expected: let clients go to nodes that have a backend, or use `scope = \"all\"`";
    Foreign = 19, "foreign", Nothing,
        "a packet to a service whose frame is for another machine or for all, or whose sender can't be where it says; left to the stack",
        "expected on promiscuous interfaces and where switches flood. Otherwise the node is known by a MAC address that none of its interfaces has";
    #[cfg(feature = "next")]
    Next = 20, "next", Nothing,
        "for the tests of upgrades: one that a later version has",
        "none needed";
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// How many there is room for in the map, so that a new one changes no layout.
    pub const ROOM: usize = 64;

    /// The reasons that are answered so, a bit for each index.
    pub const fn answered(answer: Answer) -> u64 {
        let (mut bits, mut i) = (0, 0);
        while i < Self::COUNT {
            if Self::ALL[i].answer() as u32 == answer as u32 {
                bits |= 1 << Self::ALL[i] as u32;
            }
            i += 1;
        }
        bits
    }
}

const _: () = assert!(Reason::COUNT <= Reason::ROOM);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_places() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }

    /// The table that operators read is this list.
    #[cfg(not(feature = "next"))]
    #[test]
    fn the_operators_table_is_this_list() {
        let row = |r: &Reason| format!("| `{}` | {} | {} |\n", r.name(), r.meaning(), r.remedy());
        let table: String = Reason::ALL.iter().map(row).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reasons.md");
        let text = std::fs::read_to_string(path).expect("docs/reasons.md");
        assert!(text.contains(&table), "the table in docs/reasons.md should be:\n{table}");
    }
}

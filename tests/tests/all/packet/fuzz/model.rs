//! What should become of a packet: services, flows and their states, in the plainest way. Where the product draws lots, the
//! model says what it may draw and learns what it drew.

use std::{collections::HashMap, net::IpAddr};

use lb_common::{
    abi::{Addr4, BackendCounters, FragmentKey, Reason},
    window::Side,
};

use super::{
    flow::{Flow, State},
    read::{Datagram, Key, Read, Whole},
};

/// A backend as the model knows it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where.
    pub at: (IpAddr, u16),
    /// 0: takes nothing new.
    pub weight: u32,
    /// Most connections.
    pub limit: u32,
    /// Connections that count.
    pub active: u32,
    /// What it must have counted.
    pub counters: BackendCounters,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its backends, as indices.
    pub backends: Vec<usize>,
    /// Consistent hashing, which forwards strays.
    pub hashed: bool,
}

/// The model's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Passes as it is.
    Untouched,
    /// Dropped under this reason.
    Dropped(Reason),
    /// Answered under this reason.
    Refused(Reason),
    /// Opens a flow to one of these backends; true: with another source port in any case.
    Opens(Vec<usize>, bool),
    /// Opens a flow past us, which gets another source port.
    OpensPast,
    /// Of a flow: leaves with this 5-tuple.
    Along(Key),
    /// Answered, as a host answers pings.
    Echoed,
}

/// Which of the backends stands for all that flows past us go to.
pub const PAST: usize = 0;
/// Replies to so many flows with another port are remembered, for packets to come.
const REMEMBERED: usize = 64;

/// Where a datagram is remembered: the identification's place in its stead.
fn place((src, dst, id, proto): &Datagram) -> Datagram {
    let raw = if src.is_ipv4() { u32::from((*id as u16).to_be()) } else { id.to_be() };
    (*src, *dst, FragmentKey::<Addr4>::place(raw), *proto)
}

/// All that a node knows.
#[derive(Default)]
pub struct Model {
    /// Backends; the first is [`PAST`].
    pub backends: Vec<Backend>,
    /// Services, by address, port and protocol.
    pub services: HashMap<(IpAddr, u16, u8), Service>,
    flows: HashMap<u64, Flow>,
    entries: HashMap<Key, (u64, bool)>,
    /// By addresses, place and protocol: which datagram it was, and its 5-tuple.
    datagrams: HashMap<Datagram, (u32, Key)>,
    next: u64,
    /// 5-tuples of answers to flows that got another port, some of which may be over.
    pub answers: Vec<Key>,
    /// What must have been counted.
    pub reasons: [u64; Reason::COUNT],
    /// Packets that opened nothing and were answered by nobody, whatever they were.
    pub astray: u64,
}

impl Model {
    /// A node without services; `past`: who stands for all that flows past us go to.
    pub fn new(past: Backend) -> Self {
        Self { backends: vec![past], ..Self::default() }
    }

    fn is_vip(&self, addr: IpAddr) -> bool {
        self.services.keys().any(|(vip, _, _)| *vip == addr)
    }

    /// Entries in the flow tables.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    fn odd(&self, ours: bool, reason: Reason) -> Fate {
        if ours { Fate::Dropped(reason) } else { Fate::Untouched }
    }

    /// A packet comes in: what should become of it. `astray`: it opens nothing, and is answered by nobody. Flows that end by it end here; one that opens must be [`opened`](Self::opened).
    pub fn judge(&mut self, read: &Read, astray: bool) -> Fate {
        self.astray += u64::from(astray);
        let fate = self.fate(read, astray);
        if let Read::First(whole, datagram) = read
            && matches!(fate, Fate::Along(_) | Fate::Opens(..) | Fate::OpensPast)
        {
            self.datagrams.insert(place(datagram), (datagram.2, whole.key));
        }
        fate
    }

    fn fate(&mut self, read: &Read, astray: bool) -> Fate {
        let whole = match read {
            Read::Foreign => return Fate::Untouched,
            Read::Whole(whole) => whole,
            _ if astray => return Fate::Untouched,
            Read::Broken(_, dst) => return self.odd(self.is_vip(*dst), Reason::Malformed),
            Read::Echo(_, dst) if self.is_vip(*dst) => return Fate::Echoed,
            Read::Echo(..) => return Fate::Untouched,
            Read::Fragment(part, datagram) => {
                let found = self.datagrams.get(&place(datagram)).filter(|(id, _)| *id == datagram.2);
                let Some((_, key)) = found.copied() else {
                    // VIPs are addresses of the node's, which may be meant itself.
                    return Fate::Untouched;
                };
                let Some((id, forward)) = self.entries.get(&key).copied() else {
                    return Fate::Dropped(Reason::Fragment);
                };
                return self.along(id, part, forward);
            }
            Read::First(whole, _) => {
                let key = whole.key;
                if !self.entries.contains_key(&key)
                    && !self.services.contains_key(&(key.dst.0, key.dst.1, key.proto))
                {
                    return Fate::Untouched;
                }
                whole
            }
        };
        let mut another = false;
        if let Some((id, forward)) = self.entries.get(&whole.key).copied() {
            let flow = &self.flows[&id];
            let over = matches!(flow.state, State::Closed | State::Provisional)
                || flow.state == State::Closing && flow.fin.iter().all(Option::is_some);
            // What the backend said before it answered was about another connection.
            another = forward && flow.state == State::SynSent && !flow.answered && flow.spoken;
            if another && whole.flags & 0x04 != 0 {
                return Fate::Dropped(Reason::StrayReset);
            }
            let opens = whole.key.proto == 6 && forward && whole.flags & 0x12 == 0x02;
            if !(opens && (over || another)) {
                self.advance(id, whole, forward);
                return self.along(id, whole, forward);
            }
            self.remove(id);
        }
        if astray {
            return Fate::Untouched;
        }
        let Some(service) = self.services.get(&(whole.key.dst.0, whole.key.dst.1, whole.key.proto)) else {
            let begins = whole.key.proto == 17 || whole.flags & 0x12 == 0x02;
            let taken = matches!(self.entries.get(&whole.key.reversed()), Some((_, false)));
            return if begins && taken { Fate::OpensPast } else { Fate::Untouched };
        };
        if whole.key.proto == 6 && whole.flags & 0x12 != 0x02 {
            if whole.flags & 0x04 != 0 {
                return Fate::Dropped(Reason::StrayReset);
            }
            if !service.hashed || whole.flags & 0x02 != 0 {
                return Fate::Refused(Reason::Stray);
            }
        }
        let able: Vec<_> =
            service.backends.iter().copied().filter(|b| self.backends[*b].weight > 0).collect();
        let free: Vec<_> =
            able.iter().copied().filter(|b| self.backends[*b].active < self.backends[*b].limit).collect();
        match (able.is_empty(), free.is_empty()) {
            (true, _) => Fate::Refused(Reason::NoBackend),
            (_, true) => Fate::Refused(Reason::BackendsFull),
            _ if service.hashed => Fate::Opens(free, another),
            _ => {
                let load =
                    |b: &usize| f64::from(self.backends[*b].active) / f64::from(self.backends[*b].weight);
                let least = free.iter().map(load).fold(f64::INFINITY, f64::min);
                let choice = free.iter().copied().filter(|b| load(b) <= least + 1e-12).collect();
                Fate::Opens(choice, another)
            }
        }
    }

    fn along(&mut self, id: u64, whole: &Whole, forward: bool) -> Fate {
        let flow = self.flows.get_mut(&id).expect("a flow that is there");
        flow.spoken |= !forward;
        // A SYN's data is no question on the connection that it comes over.
        if forward && whole.key.proto == 6 && whole.len != 0 && whole.flags & 0x12 != 0x02 {
            flow.mark = whole.ack.max(1);
        }
        let side = &mut flow.sides[usize::from(!forward)];
        side.bytes += whole.bytes as u64;
        let counters = &mut self.backends[flow.backend].counters;
        if forward {
            counters.packets_in += 1;
            counters.bytes_in += whole.bytes as u64;
            Fate::Along(flow.beyond)
        } else {
            counters.packets_out += 1;
            counters.bytes_out += whole.bytes as u64;
            Fate::Along(flow.forward.reversed())
        }
    }

    /// With which 5-tuple packets of a flow leave for a backend, if their source port is this.
    pub fn beyond(&self, key: &Key, backend: usize, port: u16) -> Key {
        let dst = if backend == PAST { key.dst } else { self.backends[backend].at };
        Key { src: (key.src.0, port), dst, proto: key.proto }
    }

    /// Is there a flow already whose answers would be taken for those of one that leaves with this 5-tuple?
    pub fn taken(&self, beyond: &Key) -> bool {
        self.entries.contains_key(&beyond.reversed())
    }

    /// The 5-tuple of a closed flow's packets that is in the way of one with this.
    pub fn lingering(&self, beyond: &Key) -> Option<Key> {
        let (id, forward) = self.entries.get(&beyond.reversed())?;
        let flow = &self.flows[id];
        (!forward && flow.state == State::Closed).then_some(flow.forward)
    }

    /// A closed flow was removed, to make room for another.
    pub fn dismissed(&mut self, forward: &Key) {
        let (id, _) = self.entries[forward];
        self.remove(id);
    }

    /// A flow was opened to this backend, and leaves with this 5-tuple.
    pub fn opened(&mut self, whole: &Whole, backend: usize, beyond: Key) {
        let key = whole.key;
        let state = match key.proto {
            17 => State::Udp,
            _ if whole.flags & 0x12 == 0x02 => State::SynSent,
            _ => State::Provisional,
        };
        self.next += 1;
        let flow = Flow {
            forward: key,
            backend,
            beyond,
            state,
            answered: false,
            spoken: false,
            sides: [Side::default(); 2],
            mark: match state {
                State::Udp => 0,
                _ if whole.len != 0 => whole.ack.max(1),
                State::Provisional => whole.ack,
                _ => 0,
            },
            fin: [None; 2],
            acked: [false; 2],
        };
        let mut flow = flow;
        flow.sides[0] = Side { bytes: whole.bytes as u64, ..Side::default() };
        if state == State::SynSent {
            flow.sides[0].number = whole.seq.wrapping_add(1);
        }
        if state == State::Provisional {
            flow.sides[0].number = whole.seq;
            if whole.flags & 1 != 0 {
                flow.finishes(0, whole);
            }
        }
        self.flows.insert(self.next, flow);
        self.entries.insert(key, (self.next, true));
        self.entries.insert(beyond.reversed(), (self.next, false));
        if beyond.src != key.src {
            if self.answers.len() == REMEMBERED {
                self.answers.remove(0);
            }
            self.answers.push(beyond.reversed());
        }
        let b = &mut self.backends[backend];
        b.active += 1;
        b.counters.connections += 1;
        b.counters.packets_in += 1;
        b.counters.bytes_in += whole.bytes as u64;
    }

    fn remove(&mut self, id: u64) {
        let flow = self.flows.remove(&id).expect("a flow that is there");
        self.entries.remove(&flow.forward);
        self.entries.remove(&flow.beyond.reversed());
        if flow.state != State::Closed {
            self.backends[flow.backend].active -= 1;
        }
    }

    fn advance(&mut self, id: u64, whole: &Whole, from_client: bool) {
        let flow = self.flows.get_mut(&id).expect("a flow that is there");
        let backend = &mut self.backends[flow.backend];
        let moved = flow.advance(whole, from_client);
        backend.counters.refused += u64::from(moved.refused);
        backend.counters.accepted += u64::from(moved.accepted);
        backend.active -= u32::from(moved.ended);
    }
}

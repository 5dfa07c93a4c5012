//! A million random and mutated packets at each hook: what isn't ours comes out as it went in; what is ours comes out as an
//! independent model says, to the byte; and at the end every count agrees.
//!
//! The seed is fixed, and printed; `FLOWPIN_FUZZ_SEED` and `FLOWPIN_FUZZ_PACKETS` set others.

mod flow;
mod generate;
mod model;
mod read;

use std::net::IpAddr;

use lb_common::abi::{Algorithm, BackendCounters, BackendId, FlowKey, PortBe, Proto, Reason, Stray};
use rand::{SeedableRng, rngs::StdRng};

use self::{
    model::{Backend, Fate, Model, PAST, Service},
    read::{Key, Read, Whole, read},
};
use super::{
    build::{ACK, FIN, RST, SYN, eth},
    run::{Hook, Verdict},
    stage::{NET4, NET6, Net, TCP, UDP, assert_same},
    sum,
    world::{Member, World},
};

const PACKETS: u64 = 1_000_000;
const SEED: u64 = 0x666c_6f77_7069_6e01;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

/// The node, and the model of it.
struct Fuzz {
    world: World,
    model: Model,
    ids: Vec<BackendId>,
    reasons: [u64; Reason::COUNT],
}

#[test]
fn xdp() {
    million(Hook::Xdp);
}

#[test]
fn xdp_virtual() {
    million(Hook::XdpVirtual);
}

#[test]
fn tc() {
    million(Hook::Tc);
}

fn million(hook: Hook) {
    let (seed, packets) = (setting("FLOWPIN_FUZZ_SEED", SEED), setting("FLOWPIN_FUZZ_PACKETS", PACKETS));
    println!("{hook:?}: FLOWPIN_FUZZ_SEED={seed} FLOWPIN_FUZZ_PACKETS={packets}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut fuzz = Fuzz::new(hook);
    for i in 0..packets {
        let net = if i % 2 == 0 { &NET4 } else { &NET6 };
        let mut frame = generate::frame(&mut rng, net, &fuzz.model.answers);
        if hook == Hook::Tc {
            // At TC the kernel makes no packet of less than an IP header.
            let kind = [frame[12], frame[13]];
            let least = match kind {
                [0x08, 0x00] => 34,
                [0x86, 0xdd] => 54,
                _ => 15,
            };
            if frame.len() < least {
                frame.resize(least, 0);
            }
        }
        fuzz.packet(i, &frame);
        if i % 65_536 == 0 {
            fuzz.reconcile(i);
        }
    }
    fuzz.reconcile(packets);
    assert!(packets < PACKETS || fuzz.model.answers.len() > 10, "hardly a flow got another port");
    println!("{hook:?}: reasons {:?}, {} entries", fuzz.model.reasons, fuzz.model.entries());
}

impl Fuzz {
    fn new(hook: Hook) -> Self {
        // Time is not in the packets: nobody waits for long enough to matter.
        let world = World::with_sizes(hook, 1 << 17, 1024, u32::MAX).expect("the BPF object loads");
        // What goes past us counts with the backend that is nobody.
        let nobody = (IpAddr::from([0, 0, 0, 0]), 0);
        let past = Backend { at: nobody, weight: 0, limit: 0, active: 0, counters: Default::default() };
        let mut fuzz =
            Self { world, model: Model::new(past), ids: vec![BackendId(0)], reasons: [0; Reason::COUNT] };
        for net in [&NET4, &NET6] {
            let weights = [1, 1, 3, 0];
            let pool = |port, limit| -> Vec<_> {
                net.backends
                    .iter()
                    .zip(weights)
                    .map(|(b, weight)| Member { weight, limit, ..Member::new(*b, port) })
                    .collect()
            };
            fuzz.add(net.vip, &[(TCP, 80), (UDP, 53)], pool(8080, u32::MAX), false);
            fuzz.add(net.vip, &[(TCP, 81), (UDP, 80)], Vec::new(), false);
            fuzz.add(net.vip, &[(TCP, 82), (UDP, 81)], pool(8082, 5), false);
            fuzz.add(net.vip2, &[(TCP, 80), (UDP, 53)], pool(8081, u32::MAX), true);
            // Shares backends with the first: ports may collide.
            fuzz.add(net.vip2, &[(TCP, 443), (UDP, 443)], pool(8080, u32::MAX), false);
        }
        fuzz
    }

    fn add(&mut self, vip: IpAddr, ports: &[(Proto, u16)], pool: Vec<Member>, hashed: bool) {
        let (algorithm, stray) = if hashed {
            (Algorithm::CONSISTENT_HASH, Stray::FORWARD)
        } else {
            (Algorithm::LEAST_CONNECTIONS, Stray::RESET)
        };
        let added = self.world.add_with(vip, ports, &pool, algorithm, stray).expect("a service is added");
        let first = self.ids.len();
        self.ids.extend(&added.backends);
        self.model.backends.extend(pool.iter().map(|m| Backend {
            at: (m.addr, m.port.expect("all have one")),
            weight: m.weight,
            limit: m.limit,
            active: 0,
            counters: Default::default(),
        }));
        let service = Service { backends: (first..self.ids.len()).collect(), hashed };
        for (proto, port) in ports {
            self.model.services.insert((vip, *port, proto.0), service.clone());
        }
    }

    fn packet(&mut self, i: u64, frame: &[u8]) {
        let hook = self.world.hook;
        let read = read(frame, hook == Hook::Tc);
        let fate = self.model.judge(&read, read.is_astray(frame));
        let (verdict, out) = self.world.run(frame).unwrap_or_else(|e| panic!("packet {i}: {e:#}"));
        let out = out.to_vec();
        let place = || format!("packet {i}: {read:?}, {fate:?}, verdict {verdict:?}, in {frame:02x?}");
        match (&fate, &read) {
            (Fate::Untouched, _) => {
                assert_eq!(verdict, Verdict::Pass, "{}", place());
                if frame != out {
                    assert_same(&place(), frame, &out);
                }
            }
            (Fate::Dropped(reason), _) => {
                assert_eq!(verdict, Verdict::Drop, "{}", place());
                self.model.reasons[*reason as usize] += 1;
            }
            (Fate::Echoed, _) => assert_eq!(verdict, Verdict::Back, "{}", place()),
            (Fate::Refused(reason), Read::Whole(whole) | Read::First(whole, _)) => {
                self.model.reasons[*reason as usize] += 1;
                if whole.key.proto == 6 {
                    assert_eq!(verdict, Verdict::Back, "{}", place());
                    assert_same(&place(), &reset(frame, whole), &out);
                } else if verdict == Verdict::Back {
                    assert_same(&place(), &unreachable(frame, whole), &out);
                } else {
                    // Over the rate limit, or headers too long to quote.
                    assert_eq!(verdict, Verdict::Drop, "{}", place());
                    self.model.reasons[Reason::Unanswered as usize] += 1;
                }
            }
            (Fate::Opens(choice, another), Read::Whole(whole) | Read::First(whole, _)) => {
                assert_eq!(verdict, Verdict::Pass, "{}", place());
                let port = u16::from_be_bytes([out[whole.l4], out[whole.l4 + 1]]);
                let beyond = |b: usize| self.model.beyond(&whole.key, b, port);
                let came_out = |b: &&usize| translated(hook, frame, whole, &beyond(**b)) == out;
                let Some(chosen) = choice.iter().copied().find(|b| came_out(&b)) else {
                    assert_same(&place(), &translated(hook, frame, whole, &beyond(choice[0])), &out);
                    return;
                };
                self.dismiss(whole, choice, &place());
                let plain = self.model.beyond(&whole.key, chosen, whole.key.src.1);
                let needed = *another || self.model.taken(&plain);
                assert_eq!(needed, port != whole.key.src.1, "{}", place());
                self.opened(whole, chosen, port, &place());
            }
            (Fate::OpensPast, Read::Whole(whole) | Read::First(whole, _)) => {
                assert_eq!(verdict, Verdict::Pass, "{}", place());
                let port = u16::from_be_bytes([out[whole.l4], out[whole.l4 + 1]]);
                let beyond = self.model.beyond(&whole.key, PAST, port);
                assert_same(&place(), &translated(hook, frame, whole, &beyond), &out);
                assert_ne!(port, whole.key.src.1, "{}", place());
                self.opened(whole, PAST, port, &place());
            }
            (Fate::Along(beyond), Read::Whole(whole) | Read::First(whole, _) | Read::Fragment(whole, _)) => {
                assert_eq!(verdict, Verdict::Pass, "{}", place());
                assert_same(&place(), &translated(hook, frame, whole, beyond), &out);
            }
            (fate, read) => panic!("packet {i}: the model says {fate:?} of {read:?}"),
        }
    }

    /// A closed flow was removed that was in the way of the backend that was chosen first: at most one, whichever.
    fn dismiss(&mut self, whole: &Whole, choice: &[usize], place: &str) {
        let beyond = |b: &usize| self.model.beyond(&whole.key, *b, whole.key.src.1);
        let closed: Vec<_> = choice.iter().filter_map(|b| self.model.lingering(&beyond(b))).collect();
        let gone: Vec<_> = closed.into_iter().filter(|key| !self.has(key)).collect();
        assert!(gone.len() <= 1, "{place}: gone are {gone:?}");
        gone.iter().for_each(|key| self.model.dismissed(key));
    }

    /// A flow was opened, and has a port of its own.
    fn opened(&mut self, whole: &Whole, backend: usize, port: u16, place: &str) {
        let beyond = self.model.beyond(&whole.key, backend, port);
        assert!(!self.model.taken(&beyond), "{place}: port {port} is another's");
        assert!(port == whole.key.src.1 || (1024..30_000).contains(&port), "{place}: port {port}");
        self.model.opened(whole, backend, beyond);
    }

    /// Has the node an entry with this key?
    fn has(&self, key: &Key) -> bool {
        let (sport, dport, proto) = (PortBe::new(key.src.1), PortBe::new(key.dst.1), Proto(key.proto));
        match (key.src.0, key.dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let key = FlowKey::new(src.into(), dst.into(), sport, dport, proto);
                self.world.flows4.get(&key).is_some()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let key = FlowKey::new(src.into(), dst.into(), sport, dport, proto);
                self.world.flows6.get(&key).is_some()
            }
            mixed => panic!("a packet has addresses of one family, not {mixed:?}"),
        }
    }

    /// Every count agrees.
    fn reconcile(&mut self, i: u64) {
        self.reasons = self.world.reasons().expect("reasons are read");
        // Of what it can't read the model doesn't know whom it is for.
        assert!(self.reasons[Reason::Foreign as usize] <= self.model.astray, "after packet {i}");
        for reason in Reason::ALL.iter().copied().filter(|reason| *reason != Reason::Foreign) {
            let (ours, theirs) = (self.model.reasons[reason as usize], self.reasons[reason as usize]);
            assert_eq!(ours, theirs, "after packet {i}: model and node disagree on {}", reason.name());
        }
        for (id, backend) in self.ids.iter().zip(&self.model.backends) {
            let active = self.world.active(*id).expect("counts are read");
            assert_eq!(backend.active, active, "after packet {i}: active connections of {:?}", backend.at);
            // Who asks again is a sign only after a while, which is time and not in the packets.
            let counters =
                BackendCounters { unanswered: 0, ..self.world.counters(*id).expect("counters are read") };
            assert_eq!(backend.counters, counters, "after packet {i}: counters of {:?}", backend.at);
        }
        assert_eq!(self.model.entries(), self.world.entries(), "after packet {i}: entries");
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The frame with another 5-tuple, and the checksums changed by as much as the addresses and ports did.
fn translated(hook: Hook, frame: &[u8], w: &Whole, new: &Key) -> Vec<u8> {
    let mut out = frame.to_vec();
    let v4 = w.key.src.0.is_ipv4();
    let (at, len) = if v4 { (w.l3 + 12, 8) } else { (w.l3 + 8, 32) };
    let addresses = |key: &Key| [octets(key.src.0), octets(key.dst.0)].concat();
    // A later fragment's key has the right addresses, and no ports.
    out[at..at + len].copy_from_slice(&addresses(new));
    let field = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let addr = sum::change(&addresses(&w.key), &addresses(new));
    if v4 {
        let check = !sum::fold(u64::from(!field(w.l3 + 10)) + addr);
        out[w.l3 + 10..w.l3 + 12].copy_from_slice(&check.to_be_bytes());
    }
    if w.l4 == 0 {
        return out;
    }
    let ports = |key: &Key| [key.src.1.to_be_bytes(), key.dst.1.to_be_bytes()].concat();
    out[w.l4..w.l4 + 4].copy_from_slice(&ports(new));
    let at = w.l4 + if w.key.proto == 6 { 16 } else { 6 };
    let port = sum::change(&ports(&w.key), &ports(new));
    let room = w.bytes - (w.l4 - w.l3);
    let pseudo = sum::fold(sum::pseudo(w.key.src.0, w.key.dst.0, w.key.proto, room));
    let check = match field(at) {
        old if hook == Hook::XdpVirtual && !w.first && old == pseudo && old != 0 => {
            sum::fold(u64::from(old) + addr)
        }
        0 if w.key.proto == 17 => 0,
        old => match !sum::fold(u64::from(!old) + addr + port) {
            0 if w.key.proto == 17 => 0xffff,
            new => new,
        },
    };
    out[at..at + 2].copy_from_slice(&check.to_be_bytes());
    out
}

/// The layer-2 header with its addresses swapped.
fn turned(frame: &[u8], l3: usize) -> Vec<u8> {
    let mut out = frame[6..12].to_vec();
    out.extend(&frame[..6]);
    out.extend(&frame[12..l3]);
    out
}

fn reset(frame: &[u8], w: &Whole) -> Vec<u8> {
    let Key { src, dst, .. } = w.key;
    let (flags, seq, ack) = if w.flags & ACK != 0 {
        (RST, w.ack, 0)
    } else {
        let takes = u32::from(w.flags & SYN != 0) + u32::from(w.flags & FIN != 0);
        (RST | ACK, 0, w.seq.wrapping_add(w.len).wrapping_add(takes))
    };
    let mut out = turned(frame, w.l3);
    out.extend(eth().ip(dst.0, src.0).fresh().tcp(dst.1, src.1, flags).numbers(seq, ack).window(0).packet());
    out
}

fn unreachable(frame: &[u8], w: &Whole) -> Vec<u8> {
    let Key { src, dst, .. } = w.key;
    let (kind, code) = if src.0.is_ipv4() { (3, 3) } else { (1, 4) };
    let mut out = turned(frame, w.l3);
    out.extend(eth().ip(dst.0, src.0).fresh().icmp(kind, code).payload(&frame[w.l3..w.l4 + 8]).packet());
    out
}

/// The nets that the generator draws from have no address in common, so that the model's two families never meet.
#[test]
fn nets_are_apart() {
    let all = |n: &Net| [vec![n.client, n.vip, n.vip2, n.other], n.backends.to_vec()].concat();
    assert!(all(&NET4).iter().all(|a| !all(&NET6).contains(a)));
}

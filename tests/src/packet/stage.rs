//! How packet tests are told: a stage (hook and IP version), packets in order, and what each must become. Every step checks the
//! verdict, every byte of what comes out, and that exactly the expected reasons were counted.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use lb_common::abi::{Proto, Reason};

use super::{
    build::Frame,
    run::{Hook, Verdict},
    world::{Added, Member, World},
};

/// TCP, for services.
pub const TCP: Proto = Proto::TCP;
/// UDP, for services.
pub const UDP: Proto = Proto::UDP;

/// Who is who, in one IP version.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// A client.
    pub client: IpAddr,
    /// A service's address.
    pub vip: IpAddr,
    /// Another's.
    pub vip2: IpAddr,
    /// Backends.
    pub backends: [IpAddr; 4],
    /// Somebody who has nothing to do with it.
    pub other: IpAddr,
}

/// IPv4.
pub const NET4: Net = {
    const fn a(net: u8, host: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(10, net, 0, host))
    }
    Net {
        client: a(1, 2),
        vip: a(96, 10),
        vip2: a(96, 11),
        backends: [a(2, 1), a(2, 2), a(2, 3), a(2, 4)],
        other: a(9, 9),
    }
};

/// IPv6.
pub const NET6: Net = {
    const fn a(net: u16, host: u16) -> IpAddr {
        IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host))
    }
    Net {
        client: a(1, 2),
        vip: a(96, 10),
        vip2: a(96, 11),
        backends: [a(2, 1), a(2, 2), a(2, 3), a(2, 4)],
        other: a(9, 9),
    }
};

/// What must become of a packet.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Passes, not a byte changed, nothing counted.
    Pass,
    /// Passes, not a byte changed, counted under this reason.
    Left(Reason),
    /// Passes, and is now this.
    Becomes(Frame),
    /// Goes back where it came from, and is now this; nothing counted.
    Answered(Frame),
    /// Goes back where it came from, and is now this; counted under this reason.
    Back(Frame, Reason),
    /// Is dropped, counted under this reason.
    Drop(Reason),
    /// Is dropped for this reason, since the answer that is due couldn't be made.
    Unanswered(Reason),
}

/// Something that goes in: a frame, or bytes.
pub trait Input {
    /// The bytes.
    fn input(&self) -> Vec<u8>;
}

impl Input for Frame {
    fn input(&self) -> Vec<u8> {
        self.bytes()
    }
}

impl Input for Vec<u8> {
    fn input(&self) -> Vec<u8> {
        self.clone()
    }
}

impl<T: Input> Input for &T {
    fn input(&self) -> Vec<u8> {
        (*self).input()
    }
}

/// By which way a packet goes.
type Run = for<'a> fn(&'a mut World, &[u8]) -> anyhow::Result<(Verdict, &'a [u8])>;

/// A node to send packets through.
pub struct Stage<'a> {
    /// The node.
    pub world: &'a mut World,
    /// Its addresses.
    pub net: &'static Net,
}

/// The objects that are loaded already, by hook.
static LOADED: [Mutex<Option<World>>; 5] = [const { Mutex::new(None) }; 5];

/// Runs a test at each hook and in each IP version, each on an empty node.
///
/// # Panics
/// The test does, or nothing can be loaded.
pub fn everywhere(test: impl Fn(&mut Stage<'_>)) {
    for hook in Hook::ALL {
        on(hook, &[&NET4, &NET6], &test);
    }
}

/// Runs a test at one hook.
///
/// # Panics
/// As for [`everywhere`].
pub fn on(hook: Hook, nets: &[&'static Net], test: &impl Fn(&mut Stage<'_>)) {
    let mut loaded = LOADED[hook as usize].lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out: a test that panics leaves nothing behind for the next.
    let mut world = loaded.take().unwrap_or_else(|| World::new(hook).expect("the BPF object loads"));
    for net in nets {
        world.reset().expect("maps can be emptied");
        test(&mut Stage { world: &mut world, net });
    }
    *loaded = Some(world);
}

impl Stage<'_> {
    /// A service at the VIP with the net's first `n` backends at their port 8080.
    pub fn service(&mut self, proto: Proto, port: u16, n: usize) -> Added {
        let members: Vec<_> = self.net.backends[..n].iter().map(|b| Member::new(*b, 8080)).collect();
        self.world.add(self.net.vip, &[(proto, port)], &members).expect("a service is added")
    }

    /// Sends a packet in; it must fare as expected.
    #[track_caller]
    pub fn step(&mut self, scene: &str, packet: impl Input, expect: Expect) {
        self.fares(scene, &packet.input(), &expect, World::run);
    }

    /// Sends a packet out; it must fare as expected.
    #[track_caller]
    pub fn leaves(&mut self, scene: &str, packet: impl Input, expect: Expect) {
        self.fares(scene, &packet.input(), &expect, World::leave);
    }

    #[track_caller]
    fn fares(&mut self, scene: &str, input: &[u8], expect: &Expect, run: Run) {
        let place = format!(
            "{:?}, {}: {scene}",
            self.world.hook,
            if self.net.vip.is_ipv4() { "IPv4" } else { "IPv6" }
        );
        let before = self.world.reasons().expect("reasons are read");
        let (verdict, out) = run(self.world, input).unwrap_or_else(|e| panic!("{place}: {e:#}"));
        let out = out.to_vec();
        let mut counted = before;
        let (want, bytes) = match expect {
            Expect::Pass => (Verdict::Pass, Some(input.to_vec())),
            Expect::Left(reason) => {
                counted[*reason as usize] += 1;
                (Verdict::Pass, Some(input.to_vec()))
            }
            Expect::Becomes(frame) => (Verdict::Pass, Some(frame.bytes())),
            Expect::Answered(frame) => (Verdict::Back, Some(frame.bytes())),
            Expect::Back(frame, reason) => {
                counted[*reason as usize] += 1;
                (Verdict::Back, Some(frame.bytes()))
            }
            Expect::Drop(reason) => {
                counted[*reason as usize] += 1;
                (Verdict::Drop, None)
            }
            Expect::Unanswered(reason) => {
                counted[*reason as usize] += 1;
                counted[Reason::Unanswered as usize] += 1;
                (Verdict::Drop, None)
            }
        };
        let reasons = self.world.reasons().expect("reasons are read");
        assert_eq!(verdict, want, "{place}: verdict, with {}", Counted(&before, &reasons));
        if let Some(bytes) = bytes {
            assert_same(&place, &bytes, &out);
        }
        assert_eq!(reasons, counted, "{place}: counted {}", Counted(&before, &reasons));
    }

    /// Sends a packet that opens a flow, or belongs to one; returns which of the net's backends it goes to. It must come out
    /// translated to that backend's port 8080 and otherwise unchanged.
    #[track_caller]
    pub fn forwarded(&mut self, scene: &str, packet: &Frame) -> usize {
        let (verdict, out) = self.world.run(&packet.bytes()).expect("it runs");
        let out = out.to_vec();
        let place = format!("{:?}: {scene}", self.world.hook);
        assert_eq!(verdict, Verdict::Pass, "{place}: verdict");
        let to = self.net.backends.iter().position(|b| packet.clone().to(*b, 8080).bytes() == out);
        to.unwrap_or_else(|| panic!("{place}: not translated to any backend:\n{}", Hex(&out)))
    }

    /// The backends' active counts must be these.
    #[track_caller]
    pub fn active(&self, scene: &str, added: &Added, counts: &[u32]) {
        let found: Vec<u32> =
            added.backends.iter().map(|b| self.world.active(*b).expect("counts are read")).collect();
        assert_eq!(found, counts, "{:?}: {scene}: active connections", self.world.hook);
    }
}

/// The reasons that were counted in between, by name.
struct Counted<'a>(&'a [u64; Reason::COUNT], &'a [u64; Reason::COUNT]);

impl std::fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut any = false;
        for reason in Reason::ALL.iter().copied() {
            let n = self.1[reason as usize] - self.0[reason as usize];
            if n > 0 {
                write!(f, "{}{} {n}", if any { ", " } else { "" }, reason.name())?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("no reason") }
    }
}

/// Bytes, sixteen a line.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, line) in self.0.chunks(16).take(16).enumerate() {
            write!(f, "  {:04x} ", i * 16)?;
            line.iter().try_for_each(|b| write!(f, " {b:02x}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Two frames must be the same.
#[track_caller]
pub fn assert_same(place: &str, want: &[u8], got: &[u8]) {
    if want != got {
        let at = want.iter().zip(got).position(|(a, b)| a != b).unwrap_or(want.len().min(got.len()));
        panic!(
            "{place}: frames differ from offset {at} on\nexpected ({} bytes)\n{}came out ({} bytes)\n{}",
            want.len(),
            Hex(want),
            got.len(),
            Hex(got)
        );
    }
}

//! Processes of the node: whoever connects a socket to a VIP, or sends a datagram to one, is led to a backend at once. His packets carry the
//! backend's address from the start, so that they cost nothing here; what is counted is the socket, from then until it is closed.
//!
//! Hooks run in the process's own context, where packets may interrupt them: nothing here uses the packet path's per-CPU places.

mod peer;
mod pins;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_jiffies64, bpf_set_retval},
    programs::{SockAddrContext, SockContext, XdpContext},
};
use lb_common::{
    abi::{
        Backend, CREATED_SHIFT, List, PortBe, Proto, Reason, Service, SocketPin, SourceRanges,
        socket::{SocketRequest, led},
        sweep::{BATCH, HEADER, RESET},
    },
    hash,
    socket_table::{self, Places as _, claimed, counts, each, may_have, pinned},
};

use self::{
    peer::{Peer, node},
    pins::{Sockets, flowpin_make_room, flowpin_release, flowpin_release_all},
};
use crate::{
    account, affinity,
    choose::{self, Pick},
    conntrack::{REFUSED, chance},
    maps::{BACKENDS, NODE_NETNS, SOCKET_PINS, SOCKETS_LED},
    packet::{Packet, XdpPacket, get, opaque},
    pipeline::backend_port,
};

/// Verdict of a hook: the call goes on.
pub const GO_ON: i32 = 1;
/// It fails.
const FAIL: i32 = 0;
/// With one of these errors (include/uapi/asm-generic/errno.h, errno-base.h).
const ECONNREFUSED: i32 = 111;
const EPERM: i32 = 1;

/// The destination is not a VIP, or nothing is known of it. Not an outcome otherwise.
const NOT_OURS: u32 = 0;
/// It was replaced.
const LED: u32 = 1;

/// What a process does with an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It connects a socket.
    Connect,
    /// It sends a datagram there from a socket that isn't connected.
    Send,
    /// It asks from whom a datagram came, or to whom it is connected.
    Ask,
}

/// A hook of IPv4.
#[inline(always)]
pub fn v4(ctx: SockAddrContext, call: Call) -> i32 {
    if !concerns_us(&ctx) {
        return GO_ON;
    }
    let mut peer = Peer::v4(ctx.sock_addr);
    let outcome = lead(&ctx, &mut peer, call);
    if outcome == LED {
        peer.write4(ctx.sock_addr);
    }
    verdict(outcome, call)
}

/// A hook of IPv6.
#[inline(always)]
pub fn v6(ctx: SockAddrContext, call: Call) -> i32 {
    if !concerns_us(&ctx) {
        return GO_ON;
    }
    let mut peer = Peer::v6(ctx.sock_addr);
    let outcome = lead(&ctx, &mut peer, call);
    if outcome == LED {
        peer.write6(ctx.sock_addr);
    }
    verdict(outcome, call)
}

/// What the kernel is told. Out of the optimiser's sight, which would carry it along on the stack, where the verifier doesn't see that it
/// is one of two numbers.
#[inline(always)]
fn verdict(outcome: u32, call: Call) -> i32 {
    if call != Call::Ask && opaque(outcome as usize) as u32 & REFUSED != 0 {
        return fail(outcome);
    }
    GO_ON
}

/// Is it in the node's network namespace?
#[inline(always)]
fn of_the_node(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel's context.
    NODE_NETNS.load() == unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Is it a process that is to be led?
#[inline(always)]
fn concerns_us(ctx: &SockAddrContext) -> bool {
    SOCKETS_LED.load() != led::OF_THE_NODE || of_the_node(ctx)
}

#[inline(always)]
fn fail(refused: u32) -> i32 {
    let reason = refused & !REFUSED;
    account::reason(reason);
    let error = if reason == Reason::SourceNotAllowed as u32 { EPERM } else { ECONNREFUSED };
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_set_retval(-error) };
    FAIL
}

#[inline(always)]
fn lead(ctx: &SockAddrContext, peer: &mut Peer, call: Call) -> u32 {
    if peer.proto != Proto::TCP && peer.proto != Proto::UDP {
        return NOT_OURS;
    }
    // SAFETY: the kernel's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    match call {
        Call::Connect => connect(ctx, cookie, peer),
        Call::Send => send(ctx, cookie, peer),
        Call::Ask => ask(cookie, peer),
    }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, cookie: u64, peer: &mut Peer) -> u32 {
    let service = peer.service();
    if may_have(&Sockets, cookie) {
        // Where another program of ours has just led it: while one takes another's place, both are there.
        if service.is_none() && turn(cookie, peer, false) {
            return NOT_OURS;
        }
        // It was connected to something else before.
        flowpin_release_all(cookie);
    }
    match service {
        Some(service) => open_if_admitted(ctx, cookie, service, peer, true),
        None => NOT_OURS,
    }
}

#[inline(always)]
fn send(ctx: &SockAddrContext, cookie: u64, peer: &mut Peer) -> u32 {
    let Some(service) = peer.service() else { return NOT_OURS };
    if turn(cookie, peer, true) {
        return LED;
    }
    open_if_admitted(ctx, cookie, service, peer, false)
}

#[inline(always)]
fn ask(cookie: u64, peer: &mut Peer) -> u32 {
    if turn(cookie, peer, false) { LED } else { NOT_OURS }
}

/// Notes that an unconnected socket is in use.
#[inline(always)]
fn touch(pin: *mut SocketPin) {
    // SAFETY: within a map's value; a whole word. The helper has no preconditions.
    unsafe {
        let now = bpf_jiffies64() as u32;
        if (*pin).connected == 0 && (*pin).last_seen != now {
            (&raw mut (*pin).last_seen).write_volatile(now);
        }
    }
}

/// Replaces what the process asked for by where it was led (`asked`), or the reverse. False: this socket has no such pin. By itself, as others of
/// these, for the sake of the stack.
#[inline(never)]
fn turn(cookie: u64, peer: &mut Peer, asked: bool) -> bool {
    let mut reversed = false;
    each(&Sockets, cookie, |at, state| {
        let Some(pin) = SOCKET_PINS.get_ptr_mut(at) else { return false };
        if !counts(state) {
            return false;
        }
        // SAFETY: within a map's value. It may be let go and be another's meanwhile, see below.
        let (from, from_port, to, to_port) = unsafe {
            if asked {
                (&(*pin).vip, (*pin).vip_port, &raw const (*pin).addr, (*pin).port)
            } else {
                (&(*pin).addr, (*pin).port, &raw const (*pin).vip, (*pin).vip_port)
            }
        };
        if !peer.is(from, from_port) {
            return false;
        }
        let mut other = *peer;
        // SAFETY: as above.
        unsafe { other.turn_into(to, to_port) };
        // A full barrier: what was read is of this pin if it is still there.
        if !Sockets.exchange(at, state, state) {
            return false;
        }
        touch(pin);
        *peer = other;
        reversed = true;
        true
    });
    reversed
}

/// A call to a service that may ask who its clients are.
#[inline(always)]
fn open_if_admitted(
    ctx: &SockAddrContext,
    cookie: u64,
    service: &Service,
    peer: &mut Peer,
    connected: bool,
) -> u32 {
    let stranger = SOCKETS_LED.load() != led::OF_THE_NODE && !of_the_node(ctx);
    match admitted(stranger, service, peer.proto, connected) {
        LED => open(cookie, service, peer, connected),
        other => other,
    }
}

/// Is a process led to the service? A pod has an address of its own, by which its packets are judged, and which is who it is as a client. And
/// where its datagrams are seen they go elsewhere when their backend is gone: from a connected socket nobody could take its backend away, since it
/// is in another namespace.
#[inline(never)]
fn admitted(stranger: bool, service: &Service, proto: Proto, connected: bool) -> u32 {
    let open = service.source_ranges == SourceRanges::OPEN;
    if stranger {
        let rather = service.affine != 0 || connected && proto == Proto::UDP;
        let by_packets = rather && SOCKETS_LED.load() == led::ALL_BESIDE_PACKETS;
        return if open && !by_packets { LED } else { NOT_OURS };
    }
    if open || service.source_ranges == SourceRanges::LISTED_AND_NODE {
        return LED;
    }
    REFUSED | Reason::SourceNotAllowed as u32
}

/// Chooses a backend, pins the socket to it and makes it the destination.
#[inline(always)]
fn open(cookie: u64, service: &Service, peer: &mut Peer, connected: bool) -> u32 {
    let chance = chance();
    let chosen = choose(cookie, service, peer, chance);
    if chosen & REFUSED != 0 {
        return chosen;
    }
    let port = peer.port;
    if service.limited != 0 && choose::is_beyond(service.id, 0) {
        give_back(chosen, peer.family, port, peer.proto);
        return REFUSED | Reason::BackendsFull as u32;
    }
    if !connected {
        flowpin_make_room(cookie);
    }
    if !pin(cookie, peer, &Opening { target: service.target, chosen, chance, connected }) {
        give_back(chosen, peer.family, port, peer.proto);
        return REFUSED | Reason::TableFull as u32;
    }
    account::pinned(affinity::chosen(chosen));
    LED
}

/// A backend with a place taken on it: the outcome of `choose` or `affinity`. A process of the node's is no client from elsewhere: all backends are
/// its to use.
#[inline(never)]
fn choose(cookie: u64, service: &Service, peer: &Peer, chance: u32) -> u32 {
    if service.limited != 0 && choose::is_beyond(service.id, 1) {
        return REFUSED | Reason::BackendsFull as u32;
    }
    let flow = hash::mix(hash::mix(cookie as u32) ^ (cookie >> 32) as u32);
    let mut pick = Pick::new(service, List::new(peer.family == Backend::V6, service.local > 1), chance);
    if service.affine == 0 {
        return choose::backend(service.algorithm, &mut pick, flow);
    }
    let mut client = affinity::Client::new(node(peer.family), peer.port, peer.proto);
    let chosen = affinity::choose(service.algorithm, &mut client, &mut pick, flow);
    if chosen != REFUSED | Reason::AffinityFull as u32 {
        return chosen;
    }
    // Rather without a binding than not at all.
    account::reason(Reason::AffinityFull as u32);
    choose::backend(service.algorithm, &mut pick, flow)
}

/// Gives that back.
#[inline(never)]
fn give_back(chosen: u32, family: u8, port: PortBe, proto: Proto) {
    let backend = affinity::chosen(chosen);
    account::release(backend);
    if chosen & affinity::BOUND != 0 {
        affinity::left(node(family), port, proto, backend, false);
    }
}

/// What a socket's new pin is to be.
struct Opening {
    /// Port of backends that name none; 0: the one that was asked for.
    target: PortBe,
    /// The outcome of [`choose`].
    chosen: u32,
    /// Random bits.
    chance: u32,
    /// Until the socket is closed.
    connected: bool,
}

/// Pins the socket to the backend that was chosen, which becomes the destination. False: there is no room for another socket.
#[inline(never)]
fn pin(cookie: u64, peer: &mut Peer, opening: &Opening) -> bool {
    let Opening { target, chosen, chance, connected } = *opening;
    let backend = affinity::chosen(chosen);
    let Some(record) = BACKENDS.get(backend.0) else { return false };
    let at = socket_table::claim(&Sockets, cookie);
    let Some(pin) = SOCKET_PINS.get_ptr_mut(at) else { return false };
    let port = backend_port(record, target, peer.port);
    // SAFETY: within a map's value, and nobody else writes a pin whose place is claimed. The helper has no preconditions.
    unsafe {
        let now = bpf_jiffies64();
        (*pin).vip = peer.addr;
        (*pin).vip_port = peer.port;
        (*pin).addr = record.addr;
        (*pin).port = port;
        (*pin).backend = backend;
        (*pin).last_seen = now as u32;
        (*pin).created = (now >> CREATED_SHIFT) as u32;
        (*pin).proto = peer.proto;
        (*pin).family = peer.family;
        (*pin).bound = (chosen & affinity::BOUND != 0) as u8;
        (*pin).connected = connected as u8;
        peer.turn_into(&raw const record.addr, port);
    }
    // A full barrier: whoever sees the state sees the rest.
    Sockets.exchange(at, claimed(cookie), pinned(cookie, chance))
}

/// A socket is closed.
#[inline(always)]
pub fn closed(ctx: SockContext) -> i32 {
    // SAFETY: the kernel's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if may_have(&Sockets, cookie) {
        flowpin_release_all(cookie);
    }
    GO_ON
}

/// Lets go of the pins that the agent names; returns how many there were.
#[inline(always)]
pub fn sweep(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false>::bare(ctx);
    let mut released = 0;
    let Some(p) = packet.bytes(0, HEADER) else { return 0 };
    // SAFETY: the bytes at `p` were just bounds-checked.
    let any = unsafe { get::<u8>(p, 0) } == RESET;
    for i in 0..BATCH {
        let Some(p) = packet.bytes(HEADER + i * size_of::<SocketRequest>(), size_of::<SocketRequest>())
        else {
            break;
        };
        // SAFETY: the bytes at `p` were just bounds-checked; any bits are a request.
        let request: SocketRequest = unsafe { get(p, 0) };
        let Some(pin) = SOCKET_PINS.get_ptr(request.at) else { continue };
        // SAFETY: within a map's value; a whole word.
        let silent = unsafe { (&raw const (*pin).last_seen).read_volatile() } == request.last_seen;
        if any || silent {
            released += flowpin_release(request.at, request.state);
        }
    }
    released
}

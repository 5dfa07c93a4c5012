//! Processes of the node: whoever connects a socket to a VIP, or sends a datagram to one, is led to a backend at once. His packets carry the
//! backend's address from the start, so that they cost nothing here; what is counted is the socket, from then until it is closed.
//!
//! Hooks run in the process's own context, where packets may interrupt them: nothing here uses the packet path's per-CPU places.

mod peer;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_jiffies64, bpf_set_retval},
    programs::{SockAddrContext, SockContext, XdpContext},
};
use lb_common::{
    abi::{
        BackendId, CREATED_SHIFT, Guard, PortBe, Proto, Reason, Service, Socket, SocketPin,
        socket::{PINS, SocketRequest},
        sweep::{BATCH, HEADER, RESET},
    },
    hash,
};

use self::peer::{Peer, node};
use crate::{
    account, affinity,
    atomic::compare_exchange_u64,
    choose,
    conntrack::{REFUSED, chance},
    maps::{BACKENDS, NO_SOCKET, NODE_NETNS, SOCKETS, SOCKETS_OF_ALL},
    packet::{Packet, XdpPacket, get, opaque},
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
    let (mut peer, mapped) = Peer::v6(ctx.sock_addr);
    let outcome = lead(&ctx, &mut peer, call);
    if outcome == LED {
        peer.write6(ctx.sock_addr, mapped);
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
    SOCKETS_OF_ALL.load() != 0 || of_the_node(ctx)
}

#[inline(always)]
fn fail(refused: u32) -> i32 {
    let reason = refused & !REFUSED;
    account::reason_by_process(reason);
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
    if let Some(socket) = SOCKETS.get_ptr_mut(cookie) {
        // Where another program of ours has just led it: while one takes another's place, both are there.
        if service.is_none() && find(socket, |pin| peer.is(&pin.addr, pin.port)).is_some() {
            return NOT_OURS;
        }
        // It was connected to something else before.
        release_all(socket);
    }
    match service {
        Some(service) => open_if_admitted(ctx, cookie, service, peer, true),
        None => NOT_OURS,
    }
}

#[inline(always)]
fn send(ctx: &SockAddrContext, cookie: u64, peer: &mut Peer) -> u32 {
    let Some(service) = peer.service() else { return NOT_OURS };
    if let Some(socket) = SOCKETS.get_ptr_mut(cookie)
        && let Some(pin) = find(socket, |pin| peer.is(&pin.vip, pin.vip_port))
    {
        touch(pin);
        // SAFETY: within a map's value; what is read of a pin that is let go meanwhile is where it led a moment ago.
        unsafe { peer.turn_into(&raw const (*pin).addr, (*pin).port) };
        return LED;
    }
    open_if_admitted(ctx, cookie, service, peer, false)
}

#[inline(always)]
fn ask(cookie: u64, peer: &mut Peer) -> u32 {
    let Some(socket) = SOCKETS.get_ptr_mut(cookie) else { return NOT_OURS };
    let Some(pin) = find(socket, |pin| peer.is(&pin.addr, pin.port)) else { return NOT_OURS };
    touch(pin);
    // SAFETY: as above.
    unsafe { peer.turn_into(&raw const (*pin).vip, (*pin).vip_port) };
    LED
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

/// The pin in a place.
#[inline(always)]
fn at(socket: *mut Socket, place: usize) -> *mut SocketPin {
    // SAFETY: within the value: there are so many.
    unsafe { (&raw mut (*socket).pins).cast::<SocketPin>().add(place & (PINS - 1)) }
}

#[inline(always)]
fn state(pin: *mut SocketPin) -> u64 {
    // SAFETY: within a map's value. Volatile: others write meanwhile; a whole word.
    unsafe { (&raw const (*pin).state).read_volatile() }
}

/// The first pin that counts of which this is true.
#[inline(always)]
fn find(socket: *mut Socket, is: impl Fn(&SocketPin) -> bool) -> Option<*mut SocketPin> {
    let mut place = 0;
    while place < PINS {
        let pin = at(socket, place);
        // SAFETY: within a map's value.
        if state(pin) > SocketPin::FILLING && is(unsafe { &*pin }) {
            return Some(pin);
        }
        place += 1;
    }
    None
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
    if service.guard != Guard::OPEN {
        if !of_the_node(ctx) {
            // A pod has an address of its own, by which its packets are judged.
            return NOT_OURS;
        }
        if service.guard != Guard::LISTED_AND_NODE {
            return REFUSED | Reason::SourceNotAllowed as u32;
        }
    }
    open(cookie, service, peer, connected)
}

/// Chooses a backend, pins the socket to it and makes it the destination.
#[inline(never)]
fn open(cookie: u64, service: &Service, peer: &mut Peer, connected: bool) -> u32 {
    let chance = chance();
    let flow = hash::mix(hash::mix(cookie as u32) ^ (cookie >> 32) as u32);
    let chosen = if service.affine != 0 {
        affinity::choose_for_process(service, node(peer.family), flow, chance)
    } else {
        choose::backend(service, flow, chance)
    };
    if chosen & REFUSED != 0 {
        return chosen;
    }
    let (backend, bound) = (BackendId(chosen & !affinity::BOUND), chosen & affinity::BOUND != 0);
    let (Some(record), Some(pin)) = (BACKENDS.get(backend.0), claim(cookie, chance)) else {
        account::release(backend);
        if bound {
            affinity::left_by_process(node(peer.family), backend);
        }
        return REFUSED | Reason::TableFull as u32;
    };
    let port = if record.port == PortBe(0) { peer.port } else { record.port };
    // SAFETY: within a map's value, and nobody else writes a pin that is being filled. The helper has no preconditions.
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
        (*pin).bound = bound as u8;
        (*pin).connected = connected as u8;
        // A full barrier: whoever sees the state sees the rest.
        let number = 1 << 32 | chance as u64;
        compare_exchange_u64(&raw mut (*pin).state, SocketPin::FILLING, number);
    }
    account::pinned_by_process(backend);
    // SAFETY: within a map's value.
    unsafe { peer.turn_into(&raw const record.addr, port) };
    LED
}

/// A place for a pin, that is being filled from now on. `None`: there is no room for another socket.
#[inline(always)]
fn claim(cookie: u64, chance: u32) -> Option<*mut SocketPin> {
    let socket = match SOCKETS.get_ptr_mut(cookie) {
        Some(socket) => socket,
        None => {
            // Another thread may have been first.
            let _ = SOCKETS.insert(cookie, NO_SOCKET.get(0)?, aya_ebpf::bindings::BPF_NOEXIST as u64);
            SOCKETS.get_ptr_mut(cookie)?
        }
    };
    let mut place = 0;
    while place < PINS {
        let pin = at(socket, place);
        if state(pin) == 0 && take(pin, 0, SocketPin::FILLING) {
            return Some(pin);
        }
        place += 1;
    }
    // A socket that sends to more services than that: one of them is forgotten.
    let pin = at(socket, chance as usize);
    release(pin);
    if take(pin, 0, SocketPin::FILLING) { Some(pin) } else { None }
}

/// Moves a pin's state. False: somebody was faster.
#[inline(always)]
fn take(pin: *mut SocketPin, old: u64, new: u64) -> bool {
    // SAFETY: an aligned word of a map's value; all writers use compare-and-swap.
    unsafe { compare_exchange_u64(&raw mut (*pin).state, old, new) == old }
}

#[inline(always)]
fn release_all(socket: *mut Socket) {
    let mut place = 0;
    while place < PINS {
        release(at(socket, place));
        place += 1;
    }
}

/// Lets go of a pin, if it counts. True if this call did.
#[inline(never)]
fn release(pin: *mut SocketPin) -> bool {
    let seen = state(pin);
    if seen <= SocketPin::FILLING {
        return false;
    }
    // SAFETY: within a map's value; not written while the state is what it is.
    let (backend, created, bound, family) =
        unsafe { ((*pin).backend, (*pin).created, (*pin).bound, (*pin).family) };
    if !take(pin, seen, 0) {
        return false;
    }
    account::ended(backend, created);
    if bound != 0 {
        affinity::left_by_process(node(family), backend);
    }
    true
}

/// A socket is closed.
#[inline(always)]
pub fn closed(ctx: SockContext) -> i32 {
    // SAFETY: the kernel's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if let Some(socket) = SOCKETS.get_ptr_mut(cookie) {
        release_all(socket);
        let _ = SOCKETS.remove(cookie);
    }
    GO_ON
}

/// Lets go of the pins that the agent names; returns how many there were.
#[inline(always)]
pub fn sweep(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false, false>::new(ctx);
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
        let Some(socket) = SOCKETS.get_ptr_mut(request.cookie) else { continue };
        let pin = at(socket, request.place as usize);
        // SAFETY: within a map's value; a whole word.
        let silent = unsafe { (&raw const (*pin).last_seen).read_volatile() } == request.last_seen;
        if state(pin) == request.state && (any || silent) {
            released += release(pin) as u32;
        }
    }
    released
}

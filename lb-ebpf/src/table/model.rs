//! The table under every CPU's hands at once: the code that runs in the kernel, with memory of a test's, under shuttle, which
//! tries orders of events by lot. At every step: no key is there twice, an entry is whole and where it belongs, a lane that
//! is in use bears its tag. At the end: every flow is there that nobody removed, a count was given back once for each that
//! is over, no lane is lost.
//!
//! Words are read and written in one order here. That is what x86 gives but for a plain write that is read late, and each such
//! write is followed by an atomic operation, which is a full barrier, before anybody relies on it.

pub mod memory;

use std::{cell::RefCell, collections::HashMap};

use lb_common::{
    abi::{Addr4, Direction, Flow, FlowKey, PortBe, Proto, V4},
    flow_state::{Phase, Segment, Word, flags, next},
    flow_table::{LANES, place},
};
use shuttle::{
    rand::{Rng, thread_rng},
    thread,
};

use super::{
    EXISTS, Entry, FORWARD, NOWHERE, REPLY, claim, exchange, find, give_back, publish, scratch, visit,
};
use crate::conntrack::Unlink;

/// Orders that are tried by lot of each scene, and as many with few changes of the CPU that runs (Burckhardt, Kothari,
/// Musuvathi, Nagarakatte, "A randomized scheduler with probabilistic guarantees of finding bugs", 2010).
const ORDERS: usize = 3_000;

/// The backend that all are led to, by one of two ports.
const BACKEND: Addr4 = Addr4(3);
/// A port whose tags several have.
const FIRST_ALIKE: u16 = 1;

/// A flow that was put together, by its tag.
#[derive(Clone, Copy, Default)]
struct Known {
    forward: FlowKey<Addr4>,
    reply: FlowKey<Addr4>,
    published: bool,
    given_back: bool,
    removed: bool,
}

/// What is known besides the table.
#[derive(Default)]
struct Books {
    flows: HashMap<u64, Known>,
    /// Places taken on backends.
    count: i64,
}

thread_local! {
    static BOOKS: RefCell<Books> = RefCell::default();
}

fn books<T>(f: impl FnOnce(&mut Books) -> T) -> T {
    BOOKS.with_borrow_mut(f)
}

/// What holds at every moment.
fn all_is_right() {
    let (heads, buckets) = memory::snapshot();
    let mut seen = Vec::new();
    for (number, (head, bucket)) in heads.iter().zip(&buckets).enumerate() {
        for (lane, flow) in bucket.lanes.iter().enumerate().filter(|(_, flow)| flow.state != 0) {
            let key = flow.key();
            let belongs = place(&key, 0, heads.len() as u32);
            assert_eq!(head.to_le_bytes()[lane], belongs.tag, "an entry in a lane that isn't its own");
            assert!(number as u32 == belongs.first || number as u32 == belongs.second);
            let known = books(|books| books.flows[&Word(flow.state).tag()]);
            let expected = if flow.direction.is_forward() { known.forward } else { known.reply };
            assert!(key == expected, "an entry with another's key");
            assert!(!seen.contains(&key), "a key is there twice");
            seen.push(key);
        }
    }
}

/// What holds when nobody is at it.
fn all_is_settled() {
    all_is_right();
    let (heads, buckets) = memory::snapshot();
    let mut found: HashMap<u64, usize> = HashMap::new();
    let mut counted = 0;
    for (head, bucket) in heads.iter().zip(&buckets) {
        for (lane, flow) in bucket.lanes.iter().enumerate() {
            let in_use = head.to_le_bytes()[lane] != 0;
            assert_eq!(in_use, flow.state != 0, "a lane is lost");
            if in_use {
                *found.entry(Word(flow.state).tag()).or_default() += 1;
                counted += i64::from(Word(flow.state).counted());
            }
        }
    }
    books(|books| {
        assert_eq!(books.count, counted, "as many are counted as are open");
        for (tag, known) in &books.flows {
            let there = known.published && !known.removed;
            assert_eq!(found.remove(tag).unwrap_or(0), if there { 2 } else { 0 }, "both entries, or none");
        }
        assert!(found.is_empty());
    });
}

/// The n-th client's key.
fn client(number: u16) -> FlowKey<Addr4> {
    FlowKey::new(Addr4(1), Addr4(2), PortBe(number), PortBe(80), Proto::TCP)
}

/// Clients whose keys, and those of their replies, lie in the same lanes and bear the same tags in a table of one bucket.
fn alike(number: usize) -> FlowKey<Addr4> {
    let tags = |port: u16| {
        let key = client(port);
        let reply = FlowKey::new(BACKEND, key.src, PortBe(0), key.sport, key.proto);
        (place(&key, 0, 1).tag, place(&reply, 0, 1).tag)
    };
    let wanted = tags(FIRST_ALIKE);
    let mut all = (0..u16::MAX).filter(|port| tags(*port) == wanted);
    client(all.nth(number).expect("one port of 16,384"))
}

/// Opens a flow as `conntrack::pin` does. True: there is one now, whoever made it.
fn open(key: &FlowKey<Addr4>) -> bool {
    let tag = books(|books| {
        books.count += 1;
        books.flows.len() as u64
    });
    let word = Word::new(Phase::ESTABLISHED, tag);
    let forward = Flow {
        nat_addr: BACKEND,
        nat_port: PortBe(thread_rng().gen_range(0..2)),
        ..entry(key, word, Direction::FORWARD)
    };
    let back = key.twin(&forward);
    let reply = Flow {
        nat_addr: key.dst,
        nat_port: key.dport,
        ..entry(&back, Word::new(Phase(0), word.tag()), Direction::REPLY)
    };
    books(|books| books.flows.insert(word.tag(), Known { forward: *key, reply: back, ..Known::default() }));
    for (which, flow) in [(FORWARD, forward), (REPLY, reply)] {
        // SAFETY: this CPU's own.
        unsafe { *scratch::<V4>(which).unwrap() = flow };
    }
    let to = claim::<V4>(FORWARD, NOWHERE);
    let back = if to & NOWHERE == 0 { claim::<V4>(REPLY, to) } else { to };
    // Its key goes first when a flow is removed.
    assert!(to == EXISTS || back != EXISTS, "the client's last flow is still in the way");
    if back & NOWHERE != 0 {
        if to & NOWHERE == 0 {
            give_back::<V4>(to);
        }
        books(|books| books.count -= 1);
        return to == EXISTS;
    }
    // Before anybody can see it, who may remove it at once.
    books(|books| books.flows.get_mut(&word.tag()).unwrap().published = true);
    assert!(publish::<V4>(to, back));
    true
}

fn entry(key: &FlowKey<Addr4>, word: Word, direction: Direction) -> Flow<Addr4> {
    let FlowKey { src, dst, sport, dport, proto, .. } = *key;
    Flow { state: word.0, src, dst, sport, dport, proto, direction, ..Flow::default() }
}

/// A flow stops counting.
fn ended(word: Word) {
    books(|books| {
        let known = books.flows.get_mut(&word.tag()).unwrap();
        assert!(!known.given_back, "a count is given back twice");
        known.given_back = true;
        books.count -= 1;
    });
}

/// A RST, as `conntrack::moves::advance` follows it.
fn reset(flow: Entry<Addr4>) {
    let segment = Segment { flags: flags::RST, ..Segment::default() };
    let mut old = flow.seen;
    for _ in 0..4 {
        let new = next(old, true, &segment, 0, 0);
        if new == old {
            return;
        }
        match exchange(flow, old, new) {
            Ok(()) if old.counted() && !new.counted() => return ended(old),
            Err(now) if now.tag() == old.tag() => old = now,
            _ => return,
        }
    }
}

/// As `conntrack::remove`.
fn remove(flow: Entry<Addr4>, old: Word) -> bool {
    if exchange(flow, old, old.with(Phase::GONE)).is_err() {
        return false;
    }
    if old.counted() {
        ended(old);
    }
    books(|books| books.flows.get_mut(&old.tag()).unwrap().removed = true);
    let mut spare = FlowKey::default();
    assert_eq!(V4::unlink(&raw mut spare, flow.place, old.0), 1, "who removes a flow finds it");
    true
}

/// A packet of a client: what it finds is its own, or it isn't found.
fn packet(key: &FlowKey<Addr4>, opens: bool) {
    let Some(flow) = find::<V4>(key) else {
        if opens {
            open(key);
        }
        return;
    };
    let known = books(|books| books.flows[&flow.seen.tag()]);
    assert!(known.forward == *key, "a packet goes another's way");
    match flow.seen.phase() {
        Phase::ESTABLISHED if !opens => reset(flow),
        Phase::CLOSED if opens && remove(flow, flow.seen) => {
            open(key);
        }
        _ => {}
    }
}

/// A walk over the table, as the agent makes it: what it saw is removed if nothing has happened since.
fn sweep() {
    let (_, buckets) = memory::snapshot();
    for flow in buckets.iter().flat_map(|bucket| &bucket.lanes) {
        let seen = Word(flow.state);
        if flow.state == 0 || !flow.direction.is_forward() || seen.phase() == Phase::GONE {
            continue;
        }
        if let Some(found) = visit::<V4>(&flow.key()) {
            remove(found, seen);
        }
    }
}

/// A scene: a table of so many buckets, how many flows are there before, and what each CPU does.
fn scene(buckets: usize, before: u16, cpus: &'static [fn()]) {
    play(buckets, (0..before).map(|number| client(100 + number)).collect(), cpus);
}

fn play(buckets: usize, before: Vec<FlowKey<Addr4>>, cpus: &'static [fn()]) {
    let before: &'static [FlowKey<Addr4>] = before.leak();
    let play = move || {
        let _table = memory::Guard::new(buckets, cpus.len() + 1);
        books(|books| *books = Books::default());
        memory::be(cpus.len());
        before.iter().for_each(|key| assert!(open(key)));
        let cpu = |(number, does): (usize, &'static fn())| {
            thread::spawn(move || {
                memory::be(number);
                does();
            })
        };
        let running: Vec<_> = cpus.iter().enumerate().map(cpu).collect();
        running.into_iter().for_each(|cpu| cpu.join().unwrap());
        memory::be(cpus.len());
        all_is_settled();
    };
    shuttle::check_random(play, ORDERS);
    shuttle::check_pct(play, ORDERS, 3);
}

fn open_one() {
    open(&client(1));
}

fn one() {
    packet(&client(1), true);
    packet(&client(1), false);
    packet(&client(1), true);
}

fn any() {
    for _ in 0..3 {
        let (number, opens) = (thread_rng().gen_range(0..3), thread_rng().gen_bool(0.6));
        packet(&client(number), opens);
    }
}

/// Another flow takes a flow's lanes.
fn replace() {
    sweep();
    open(&alike(0));
}

fn one_alike() {
    packet(&alike(0), true);
    packet(&alike(0), false);
}

/// Whose head looks as it did, but for its version.
#[test]
fn a_flow_takes_the_place_of_one_like_it() {
    play(1, vec![alike(1)], &[one_alike, replace]);
}

#[test]
fn who_opens_the_same_flow_at_once() {
    for buckets in [1, 2, 3] {
        scene(buckets, 0, &[open_one, open_one, open_one]);
    }
}

#[test]
fn a_flow_ends_and_begins_anew_while_it_is_swept() {
    for buckets in [1, 2] {
        scene(buckets, 0, &[one, one, sweep]);
    }
}

#[test]
fn any_flows_come_and_go() {
    for buckets in [1, 2, 3] {
        scene(buckets, 0, &[any, any, any, sweep]);
    }
}

#[test]
fn there_is_hardly_room() {
    // Of seven lanes five or six are another's: three flows make two entries each.
    assert_eq!(LANES, 7);
    for (buckets, before) in [(1, 2), (1, 3), (2, 5)] {
        scene(buckets, before, &[any, any, sweep]);
    }
}

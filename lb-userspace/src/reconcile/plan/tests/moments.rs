//! Every moment of a plan is one that packets may see, and its end is what was declared.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ipnet::IpNet;
use lb_common::abi::{BLOCK_SLOTS, List, Service, Source, SourceRanges, Vip};
use proptest::prelude::*;

use super::{super::*, frontend, go, own, spec, way, weight};
use crate::{
    model::{
        AdminState, AlgorithmKind, BackendSpec, ForwardKind, Forwarding, Origin, Scope as Backends,
        ServiceSpec, service::make_backend,
    },
    reconcile::actual::PortKey,
};

/// Who is let in: prefixes; everybody is all that there are, and one more.
type Clients = BTreeSet<IpNet>;

fn everybody() -> Clients {
    (0..4).flat_map(prefixes).chain(["::/0".parse().unwrap()]).collect()
}

/// Prefixes of both families.
fn prefixes(i: u8) -> [IpNet; 2] {
    [format!("10.{i}.0.0/16"), format!("fd0{i}::/16")].map(|text| text.parse().unwrap())
}

/// What each address and port is to lead to: to who names the address, or else to who is at all of them.
fn wanted(desired: &Desired, own: &OwnAddresses) -> BTreeMap<PortKey, (String, Frontend)> {
    let mut wanted = BTreeMap::new();
    for named in [false, true] {
        for (spec, frontend) in
            desired.services().values().flat_map(|s| s.frontends.iter().map(move |f| (s, f)))
        {
            let vips: Vec<IpAddr> =
                if named { frontend.named().collect() } else { frontend.anywhere(own).collect() };
            for vip in vips {
                for range in &frontend.ports {
                    for port in range.iter() {
                        wanted.insert(
                            (vip, range.protocol().proto(), port),
                            (spec.name.clone(), frontend.clone()),
                        );
                    }
                }
            }
        }
    }
    wanted
}

/// What holds from one state to the next.
pub(crate) struct Change {
    pinned: HashSet<BackendId>,
    /// Who is let in where, before and after.
    clients: [BTreeMap<PortKey, Clients>; 2],
}

impl Change {
    pub(crate) fn new(pinned: HashSet<BackendId>, states: [(&Desired, &OwnAddresses); 2]) -> Self {
        let clients = states.map(|(desired, own)| {
            let all = wanted(desired, own).into_iter();
            let of = |at: IpAddr, sources: Clients| match sources.is_empty() {
                _ if at.is_loopback() => Clients::new(),
                true => everybody(),
                false => sources,
            };
            all.map(|(key, (_, frontend))| (key, of(key.0, frontend.admitted().into_owned()))).collect()
        });
        Self { pinned, clients }
    }

    /// Everything a packet could run into.
    pub(crate) fn consistent(&self, actual: &Actual, at: &Step) {
        let [before, after] = &self.clients;
        let mut found = BTreeSet::new();
        for service in actual.services().values() {
            for (key, value) in &service.ports {
                found.insert(*key);
                admits(actual, value, before.get(key), after.get(key), at);
                chain(actual, value, at);
            }
            limit(actual, service, at);
            for (_, id, _) in service.tables.values().flat_map(|table| &table.members) {
                assert!(actual.backend(*id).is_some(), "{at:?}: table names a free backend");
            }
        }
        for key in before.keys().filter(|key| after.contains_key(key)) {
            assert!(found.contains(key), "{at:?}: {key:?} is nobody's for a moment");
        }
        for id in &self.pinned {
            assert!(actual.backend(*id).is_some(), "{at:?}: {id:?} was freed under its flows");
        }
    }

    pub(super) fn run(&self, actual: &mut Actual, plan: &Plan) {
        for step in &plan.steps {
            if let Step::Backend { id, value } = step
                && let Some(before) = actual.backend(*id)
                && value.family != Backend::FREE
            {
                let same = (before.addr, before.port) == (value.addr, value.port);
                assert!(same, "an id in use is given to another backend");
            }
            actual.apply(step);
            self.consistent(actual, step);
        }
    }
}

/// Nobody is let in whom neither state lets in, nobody shut out whom both do.
fn admits(actual: &Actual, value: &Service, before: Option<&Clients>, after: Option<&Clients>, at: &Step) {
    let open = value.source_ranges == SourceRanges::OPEN;
    let listed = || actual.ranges().get(&value.ranges).cloned().unwrap_or_default();
    let let_in = if open { everybody() } else { listed() };
    let (most, least) = match (before, after) {
        (Some(a), Some(b)) => (a | b, a & b),
        (Some(one), None) | (None, Some(one)) => (one.clone(), one.clone()),
        (None, None) => panic!("{at:?}: an entry that neither state has"),
    };
    assert!(let_in.is_subset(&most), "{at:?}: {let_in:?} beyond {most:?}");
    assert!(least.is_subset(&let_in), "{at:?}: {let_in:?} without {least:?}");
}

/// Where an entry asks for a limit there is one, over every block with a backend that may have connections, and over no
/// other service's. Nobody is led to a backend before its block is written.
fn limit(actual: &Actual, service: &ActualService, at: &Step) {
    for value in service.ports.values().filter(|value| value.limited != 0) {
        let limit = actual.limit(value.id).unwrap_or_else(|| panic!("{at:?}: a limit that nobody knows"));
        assert!(limit.most > 0 && value.scarce != 0);
        let written = |block: &BlockId| actual.block(*block).is_some();
        let mut own = service.backends.values().map(|id| id.block()).filter(written);
        assert!(own.all(|block| limit.blocks().contains(&block)), "{at:?}: a block isn't counted");
        let others = |block: &&BlockId| actual.block(**block).is_some_and(|b| b.service != value.id);
        assert_eq!(limit.blocks().iter().find(others), None, "{at:?}: another's block is counted");
    }
}

/// A pool is whole, whichever way it is entered.
fn chain(actual: &Actual, value: &Service, at: &Step) {
    let mut found = BTreeSet::new();
    let mut block = value.first_block;
    while block != 0 {
        assert!(found.insert(block) && found.len() <= limits::MAX_CHAIN as usize, "{at:?}: a circle");
        let record =
            actual.block(block).unwrap_or_else(|| panic!("{at:?}: chain leads to free block {block}"));
        assert_eq!(record.service, value.id, "{at:?}: chain leads into another service");
        for slot in (0..BLOCK_SLOTS).filter(|slot| record.weight[*slot] > 0) {
            let backend = actual.backend(BackendId::new(block, slot as u32));
            assert_eq!(backend.map(|b| b.service), Some(value.id), "{at:?}: eligible slot without backend");
            let v6 = backend.and_then(Backend::address).is_some_and(|address| address.is_ipv6());
            let on = |list: List| record.lists[list.index()] & 1 << slot != 0;
            assert!(on(List::new(v6, false)) && !on(List::new(!v6, false)) && !on(List::new(!v6, true)));
        }
        block = record.next;
    }
    if value.first_block != 0 && actual.block(value.first_block).is_some_and(|first| first.starts != 0) {
        let starts = actual.starts(value.first_block).expect("a long pool has entry points");
        // Blocks that the chain has just left out lead into it, or to its end, where a walk goes on from its first.
        for start in starts {
            let mut block = *start;
            let mut left_out = 0;
            while block != 0 && !found.contains(&block) {
                let record =
                    actual.block(block).unwrap_or_else(|| panic!("{at:?}: entered at free block {block}"));
                assert_eq!(record.service, value.id, "{at:?}: entered in another service");
                left_out += 1;
                assert!(left_out <= limits::MAX_CHAIN, "{at:?}: an entry point that leads nowhere");
                block = record.next;
            }
        }
    }
}

/// Five services that meet at the node's addresses: one is at all of them, two at one each; some have frontends more.
pub(crate) fn state() -> impl Strategy<Value = Vec<ServiceSpec>> {
    let backends = prop::collection::btree_map(0u8..40, 0u16..4, 0..24);
    let sources = || prop::collection::btree_set(0u8..4, 0..3);
    let more = prop::collection::vec((any::<bool>(), sources(), any::<bool>()), 4);
    let algorithm = prop::sample::select(AlgorithmKind::ALL.to_vec());
    let service = (backends, algorithm, 0u16..3, sources(), more);
    prop::collection::btree_map(0u8..5, service, 0..5).prop_map(move |services| {
        let make = |(n, (backends, algorithm, extra, sources, more)): (u8, (_, _, _, _, Vec<_>))| {
            make_service(n, &backends, algorithm, extra, &sources, &more)
        };
        services.into_iter().map(make).collect()
    })
}

fn make_service(
    n: u8,
    backends: &BTreeMap<u8, u16>,
    algorithm: AlgorithmKind,
    extra: u16,
    sources: &BTreeSet<u8>,
    more: &[(bool, BTreeSet<u8>, bool)],
) -> ServiceSpec {
    let vips = ["10.96.0.1", "10.96.0.2", "192.0.2.1", "192.0.2.2", "0.0.0.0"];
    let (range, node_port) = (format!("8000-{}/tcp", 8000 + extra), format!("{}/tcp", 9000 + u16::from(n)));
    let (next, six) = (format!("{}:{}/tcp", 9000 + u16::from(n + 1) % 5, 7000 + extra), format!("fd96::{n}"));
    let candidates = [
        frontend(&[&format!("10.97.0.{n}"), &six], &["80:8080/tcp", "53/udp"]),
        frontend(&["0.0.0.0", "::"], &[&node_port]),
        // In the way of the next service's, at one of the node's addresses.
        frontend(&["192.0.2.1", "2001:db8::1"], &[&next]),
        // For the node's own processes, beside an address for everybody.
        frontend(&["127.0.0.1", "::1", &format!("10.98.0.{n}")], &[&node_port]),
    ];
    let mut spec = spec(&format!("s{n}"), vips[usize::from(n)], &["80/tcp", &range], &[], false);
    spec.algorithm = algorithm;
    spec.max_connections = (extra > 0).then(|| 10 * u32::from(extra));
    let among = |sources: &BTreeSet<u8>, f: &Frontend| -> Clients {
        let all = sources.iter().flat_map(|i| prefixes(*i));
        all.filter(|prefix| f.has_family(matches!(prefix, IpNet::V6(_)))).collect()
    };
    spec.frontends[0].sources = among(sources, &spec.frontends[0]);
    for (mut frontend, (there, sources, local)) in candidates.into_iter().zip(more) {
        if *there {
            frontend.sources = among(sources, &frontend);
            if sources.contains(&3) {
                // Part of who is let in, or of everybody.
                let denied = ["10.1.7.0/24", "fd03:7::/32"].map(|text| text.parse().unwrap());
                frontend.denied = denied.into();
            }
            if !frontend.is_open() {
                frontend.addresses.retain(|address| !address.is_loopback());
                frontend.sources = among(sources, &frontend);
            }
            frontend
                .denied
                .retain(|prefix| frontend.addresses.iter().any(|a| a.is_ipv6() == prefix.addr().is_ipv6()));
            if *local {
                frontend.scope = Backends::Local;
                frontend.forward = Forwarding { pod: ForwardKind::Nat, elsewhere: ForwardKind::Snat };
            }
            spec.frontends.push(frontend);
        }
    }
    for (b, weight) in backends {
        let address = match b {
            9 => "192.0.2.9".to_string(),
            b if b % 3 == 0 && spec.has_family(true) => format!("fd00::{b}"),
            b => format!("10.0.0.{}", b + 1),
        };
        let mut backend =
            make_backend("s", &address, Some((*weight).max(1).into()), None, b % 5 == 0, Origin::File)
                .unwrap();
        if *weight == 0 {
            backend.admin = AdminState::Draining { since: Default::default(), deadline: None };
        }
        spec.add(backend).unwrap();
    }
    spec
}

/// Everything is as declared.
pub(crate) fn arrived(actual: &Actual, desired: &Desired, own: &OwnAddresses) {
    let wanted = wanted(desired, own);
    let found: BTreeMap<PortKey, Service> =
        actual.services().values().flat_map(|s| s.ports.iter().map(|(key, value)| (*key, *value))).collect();
    assert!(found.keys().eq(wanted.keys()), "{found:?} instead of {wanted:?}");
    let mut numbers = BTreeSet::new();
    for (key, (name, frontend)) in &wanted {
        let value = &found[key];
        let range = frontend.range(key.1, key.2).unwrap();
        assert_eq!(Some(value.id), actual.id(name));
        let most = desired.services()[name].max_connections;
        assert_eq!(actual.limit(value.id).map(|limit| limit.most), most);
        assert_eq!(value.limited != 0, most.is_some());
        assert_eq!(value.target.get(), range.target(key.2).unwrap_or(0));
        assert_eq!(value.forward(Source::ELSEWHERE), frontend.forward.elsewhere.code());
        assert_eq!(value.list(Source::ELSEWHERE, false).is_local(), frontend.scope == Backends::Local);
        if key.0.is_loopback() {
            assert_eq!((value.source_ranges, value.ranges), (SourceRanges::LISTED_AND_NODE, 0));
            continue;
        }
        assert_eq!(value.source_ranges == SourceRanges::OPEN, frontend.is_open());
        if value.source_ranges != SourceRanges::OPEN {
            numbers.insert(value.ranges);
            assert_eq!(&actual.ranges()[&value.ranges], frontend.admitted().as_ref());
        }
    }
    assert!(actual.ranges().keys().eq(&numbers), "numbers that nobody has are freed");
    let shared = |vip: &IpAddr| own.contains(vip) || vip.is_loopback();
    let vip = |vip: IpAddr| (vip, if shared(&vip) { Vip::SHARED } else { Vip::OWNED });
    let vips: BTreeMap<IpAddr, Vip> =
        desired.services().values().flat_map(|spec| spec.named()).map(vip).collect();
    assert_eq!(actual.vips(), &vips);
    for spec in desired.services().values() {
        let service = actual.service(&spec.name).unwrap();
        let listed = spec.algorithm.has_table();
        for list in (0..4).map(List) {
            let v6 = list.0 & 1 != 0;
            let on = |b: &&BackendSpec| {
                let local = b.local || own.contains(&b.address);
                weight(b) > 0 && b.address.is_ipv6() == v6 && (local || !list.is_local())
            };
            let asks = |f: &Frontend| f.has_family(v6) && (f.scope == Backends::Local || !list.is_local());
            let asked = listed && spec.frontends.iter().any(asks);
            let members: Vec<String> = spec.backends.values().filter(on).map(BackendSpec::name).collect();
            let table = service.tables.get(&list.0);
            let names: Vec<String> =
                table.into_iter().flat_map(|t| &t.members).map(|(name, ..)| name.clone()).collect();
            assert_eq!(names, if asked { members.clone() } else { Vec::new() });
            let listed = spec.backends.keys().filter(|name| {
                let id = service.backends[*name];
                actual.block(id.block()).unwrap().lists[list.index()] & 1 << id.slot() != 0
            });
            assert!(listed.eq(&members), "list {list:?}");
        }
        for (backend, spec) in &spec.backends {
            let id = service.backends[backend];
            assert_eq!(actual.block(id.block()).unwrap().weight[id.slot()], weight(spec));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is declared after whatever, every moment of the way is one that packets may see, and the end is what was declared.
    #[test]
    fn every_moment_is_correct(states in prop::collection::vec((state(), 0usize..5), 1..6), pin: u32) {
        let mut actual = Actual::default();
        let mut last = (Desired::default(), OwnAddresses::new());
        for (i, (services, addresses)) in states.into_iter().enumerate() {
            let own: OwnAddresses = own().into_iter().take(addresses).collect();
            let pinned: HashSet<BackendId> = actual.backends().map(|(id, _)| id).filter(|id| (id.0 ^ pin).is_multiple_of(3)).collect();
            let desired = Desired::new(services).unwrap();
            let change = Change::new(pinned, [(&last.0, &last.1), (&desired, &own)]);
            let step = way(&desired, &actual, &own, Scope::All).unwrap();
            change.run(&mut actual, &step);
            prop_assert!(way(&desired, &actual, &own, Scope::All).unwrap().steps.is_empty(), "not converged at state {i}");
            let freed = collect(&desired, &actual, |id| change.pinned.contains(&id));
            change.run(&mut actual, &freed);
            prop_assert!(way(&desired, &actual, &own, Scope::All).unwrap().steps.is_empty());
            arrived(&actual, &desired, &own);
            last = (desired, own);
        }
        let nothing = Desired::default();
        let change = Change::new(HashSet::new(), [(&last.0, &last.1), (&nothing, &last.1)]);
        let end = way(&nothing, &actual, &last.1, Scope::All).unwrap();
        change.run(&mut actual, &end);
        let end = collect(&nothing, &actual, |_| false);
        change.run(&mut actual, &end);
        prop_assert_eq!(actual, Actual::default());
    }

    /// A change of one service alone leads to the same as a look at all of them.
    #[test]
    fn one_service_or_all(services in state(), changed in state(), index: prop::sample::Index) {
        prop_assume!(!changed.is_empty());
        let new = changed[index.index(changed.len())].clone();
        let mut desired = Desired::new(services).unwrap();
        let mut actual = Actual::default();
        go(&mut actual, &desired, Scope::All);
        let before = desired.clone();
        let name = new.name.clone();
        desired.replace(&name, Some(Arc::new(new)), &own()).unwrap();
        let change = Change::new(HashSet::new(), [(&before, &own()), (&desired, &own())]);
        let step = way(&desired, &actual, &own(), Scope::Services(&[&name])).unwrap();
        change.run(&mut actual, &step);
        arrived(&actual, &desired, &own());
        desired.replace(&name, None, &own()).unwrap();
        let step = way(&desired, &actual, &own(), Scope::Services(&[&name])).unwrap();
        step.steps.iter().for_each(|step| actual.apply(step));
        arrived(&actual, &desired, &own());
    }
}

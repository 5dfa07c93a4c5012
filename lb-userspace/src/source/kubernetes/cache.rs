//! What is known of the cluster, as small as it gets, and which Services have to be looked at again. Nothing goes
//! while it is being listed anew: what a complete list doesn't have goes with its end, all at once.

mod kind;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

pub use self::kind::{Event, Kind};
use super::{
    address::parse_cidr,
    annotations::Knobs,
    node::Node,
    note::{Note, Reason},
    objects,
    record::{Service, Slice, ours},
    zones::Zones,
};
use crate::model::ForwardKind;

/// Annotations of ours, without their prefix.
pub type Words = Box<[(Box<str>, Box<str>)]>;

/// See the module.
#[derive(Debug, Default)]
pub struct Cache {
    /// The name of the own Node.
    me: String,
    /// What annotations may ask for; for what is said of Namespaces.
    modes: Vec<ForwardKind>,
    /// Zones by number.
    pub zones: Zones,
    /// Services that have a cluster address.
    pub services: Kind<Service>,
    /// EndpointSlices that are somebody's.
    pub slices: Kind<Slice>,
    /// The own Node.
    pub nodes: Kind<Node>,
    /// What was known of it last.
    known: Node,
    /// Prefixes of cluster addresses.
    pub cidrs: Kind<Box<[IpNet]>>,
    /// Annotations of Namespaces that have any.
    pub namespaces: Kind<Words>,
    /// Slices by Service.
    of: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What is wrong with objects by themselves.
    notes: BTreeMap<(&'static str, Arc<str>), Vec<Note>>,
    dirty: Dirty,
}

/// What has to be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services. `true`: at once; else there is less of something, which may be on its way to another slice.
    pub services: BTreeMap<Arc<str>, bool>,
    /// All of them.
    pub all: bool,
    /// Whether the own Node is to stay.
    pub node: bool,
    /// When what changed slices happened, in milliseconds since the Unix epoch. Of what is gone nobody says.
    pub triggers: Vec<u64>,
}

impl Dirty {
    fn add(&mut self, service: &Arc<str>, urgent: bool) {
        match self.services.get_mut(service) {
            Some(known) => *known |= urgent,
            None => drop(self.services.insert(service.clone(), urgent)),
        }
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        !self.all && !self.node && self.services.is_empty()
    }

    /// Is there something that shouldn't wait?
    pub fn is_urgent(&self) -> bool {
        self.all || self.node || self.services.values().any(|urgent| *urgent)
    }
}

impl Cache {
    /// Of a node with this name.
    pub fn new(me: &str, modes: &[ForwardKind]) -> Self {
        Self { me: me.into(), modes: modes.to_vec(), ..Self::default() }
    }

    /// The own Node's name.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Has everything been listed that is needed to know what isn't there?
    pub fn is_ready(&self) -> bool {
        let needed = self.services.is_synced() && self.slices.is_synced() && self.nodes.is_synced();
        needed && self.namespaces.is_synced()
    }

    /// Has anything been listed that can't be done without?
    pub fn is_listed_in_part(&self) -> bool {
        self.services.is_listed() || self.slices.is_listed()
    }

    /// Has all of that been?
    pub fn is_listed(&self) -> bool {
        self.is_ready() && self.services.is_listed() && self.slices.is_listed()
    }

    /// Finds out anew which slices are whose.
    pub fn restored(&mut self) {
        self.known = self.known.followed_by(self.nodes.get(&self.me));
        self.of.clear();
        for (key, slice) in self.slices.iter() {
            self.of.entry(slice.service.clone()).or_default().insert(key.clone());
        }
        self.dirty.all = true;
    }

    /// What has to be looked at again since the last time.
    pub fn take(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// What would be taken.
    pub fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// Has all of it looked at again.
    pub fn touch(&mut self) {
        self.dirty.all = true;
    }

    /// Has a Service looked at again.
    pub fn touch_one(&mut self, service: &Arc<str>) {
        self.dirty.add(service, true);
    }

    /// The own Node, or what was known of it before it went.
    pub fn node(&self) -> Node {
        self.known.clone()
    }

    /// For the last list: the own Node, also if it is gone; none, if nothing was ever known of it.
    pub fn known_nodes(&self) -> Vec<(Arc<str>, Node)> {
        let known = Some(&self.known).filter(|known| **known != Node::default());
        known.map(|known| (self.me.as_str().into(), known.clone())).into_iter().collect()
    }

    /// Slices of a Service, sorted by name.
    pub fn slices_of(&self, service: &str) -> Vec<&Slice> {
        let keys = self.of.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key)).collect()
    }

    /// Options of a Namespace.
    pub fn words_of(&self, namespace: &str) -> &[(Box<str>, Box<str>)] {
        self.namespaces.get(namespace).map_or(&[], |words| words)
    }

    /// What is wrong with objects by themselves.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.values().flatten()
    }

    /// Follows Services.
    pub fn service(&mut self, event: Event<objects::Service>) {
        let notes = &mut self.notes;
        let event = keyed(
            event,
            |object| &object.metadata,
            |key, object| parsed(notes, "Service", key, |said| Service::parse(key, object, said)),
        );
        let (dirty, notes) = (&mut self.dirty, &mut self.notes);
        fold(&mut self.services, event, &mut |key, _, now| {
            dirty.add(key, true);
            forget(notes, "Service", key, now.is_none());
        });
    }

    /// Follows EndpointSlices.
    pub fn slice(&mut self, event: Event<objects::EndpointSlice>) {
        let (me, zones, notes, of) = (&self.me, &mut self.zones, &mut self.notes, &self.of);
        let event = keyed(
            event,
            |object| &object.metadata,
            |key, object| {
                let slice =
                    parsed(notes, "EndpointSlice", key, |said| Slice::parse(key, object, me, zones, said));
                slice.map(|slice| {
                    // One copy of a name for all that have it.
                    let known = of.get_key_value(&slice.service).map(|(known, _)| known.clone());
                    Slice { service: known.unwrap_or(slice.service), ..slice }
                })
            },
        );
        let (dirty, notes, of) = (&mut self.dirty, &mut self.notes, &mut self.of);
        fold(&mut self.slices, event, &mut |key, before, now| {
            let moved = before.map(|s| &s.service) != now.map(|s| &s.service);
            if let Some(before) = before {
                dirty.add(&before.service, now.is_some_and(|now| !lost(before, now)));
                if let Some(keys) = of.get_mut(&before.service).filter(|_| moved) {
                    keys.remove(key);
                    if keys.is_empty() {
                        of.remove(&before.service);
                    }
                }
            }
            if let Some(now) = now {
                let trigger =
                    Some(now.trigger).filter(|at| *at > 0 && before.is_none_or(|b| b.trigger != *at));
                dirty.triggers.extend(trigger);
                dirty.add(&now.service, before.is_none_or(|before| !lost(before, now)));
                if moved {
                    of.entry(now.service.clone()).or_default().insert(key.clone());
                }
            }
            forget(notes, "EndpointSlice", key, now.is_none());
        });
    }

    /// Follows the own Node; others don't matter.
    pub fn node_event(&mut self, event: Event<objects::Node>) {
        let me = &self.me;
        let event = keyed(
            event,
            |object| &object.metadata,
            |_, object| (object.metadata.name == *me).then(|| Node::parse(object)),
        );
        let (dirty, known) = (&mut self.dirty, &mut self.known);
        fold(&mut self.nodes, event, &mut |_, before, now| {
            let place = |node: &Node| (node.zone.clone(), node.primary);
            let last = std::mem::replace(known, known.followed_by(now));
            dirty.all |= place(&last) != place(known);
            dirty.node |= before.map(|node| node.stays) != now.map(|node| node.stays);
        });
    }

    /// Follows prefixes of cluster addresses.
    pub fn cidr(&mut self, event: Event<objects::ServiceCidr>) {
        let event = keyed(
            event,
            |object| &object.metadata,
            |_, object| {
                Some(object.spec.cidrs.iter().filter_map(|text| parse_cidr(text)).collect::<Box<[IpNet]>>())
            },
        );
        fold(&mut self.cidrs, event, &mut |_, _, _| {});
    }

    /// Follows Namespaces.
    pub fn namespace(&mut self, event: Event<objects::Namespace>) {
        let (notes, modes) = (&mut self.notes, &self.modes);
        let event = keyed(
            event,
            |object| &object.metadata,
            |key, object| {
                parsed(notes, "Namespace", key, |said| {
                    let words = ours(&object.metadata.annotations);
                    let mut knobs = Knobs::default();
                    for error in words.iter().filter_map(|(name, text)| knobs.set(name, text, modes).err()) {
                        said.push(Note::new("Namespace", key, Reason::InvalidAnnotation, &error));
                    }
                    (!words.is_empty()).then_some(words)
                })
            },
        );
        let (dirty, services, notes) = (&mut self.dirty, &self.services, &mut self.notes);
        fold(&mut self.namespaces, event, &mut |name, _, now| {
            for (key, _) in services.iter().filter(|(key, _)| key.split('/').next() == Some(name)) {
                dirty.add(key, true);
            }
            forget(notes, "Namespace", name, now.is_none());
        });
    }
}

/// An event with what is kept of its object; `None`: nothing.
fn keyed<O, T>(
    event: Event<O>,
    meta: impl Fn(&O) -> &objects::Meta,
    parse: impl FnOnce(&Arc<str>, &O) -> Option<T>,
) -> Event<(Arc<str>, Option<T>)> {
    // Of what is gone nothing need be read.
    let gone = matches!(event, Event::Delete(_));
    event.map(|object| {
        let key: Arc<str> = meta(&object).key().into();
        let kept = if gone { None } else { parse(&key, &object) };
        (key, kept)
    })
}

/// Follows an event. What nothing is kept of isn't there.
fn fold<T: PartialEq + Clone>(
    kind: &mut Kind<T>,
    event: Event<(Arc<str>, Option<T>)>,
    changed: &mut kind::Changed<'_, T>,
) {
    let event = match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply((_, None)) => return,
        Event::InitApply((key, Some(kept))) => Event::InitApply((key, kept)),
        Event::Apply((key, Some(kept))) => Event::Apply((key, kept)),
        Event::Apply((key, None)) | Event::Delete((key, _)) => Event::Delete(key),
    };
    kind.fold(event, changed);
}

/// Keeps what is said of an object in the place of what was said before.
fn parsed<T>(
    notes: &mut BTreeMap<(&'static str, Arc<str>), Vec<Note>>,
    kind: &'static str,
    key: &Arc<str>,
    parse: impl FnOnce(&mut Vec<Note>) -> Option<T>,
) -> Option<T> {
    let mut said = Vec::new();
    let kept = parse(&mut said);
    if said.is_empty() {
        notes.remove(&(kind, key.clone()));
    } else {
        notes.insert((kind, key.clone()), said);
    }
    kept
}

fn forget(
    notes: &mut BTreeMap<(&'static str, Arc<str>), Vec<Note>>,
    kind: &'static str,
    key: &Arc<str>,
    gone: bool,
) {
    if gone {
        notes.remove(&(kind, key.clone()));
    }
}

/// Has a slice lost something that another may be about to get?
fn lost(before: &Slice, now: &Slice) -> bool {
    let there: HashSet<IpAddr> = now.endpoints.iter().map(|endpoint| endpoint.address).collect();
    before.service != now.service
        || before.endpoints.iter().any(|endpoint| !there.contains(&endpoint.address))
        || before.ports.iter().any(|port| !now.ports.contains(port))
}

//! Objects of a cluster, a line each, as JSON. What people may write in them is followed at once.

use std::{collections::BTreeMap, time::Duration};

use flowpin::{
    model::OwnAddresses,
    source::kubernetes::{Event, Options, State},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::assert_one_line;

/// Whatever they say: what follows is valid, and each note is one line. Told as what was there, or as news, it is the same.
pub fn kubernetes(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // A list has an object once.
    let name = |object: &Value| {
        let meta = &object["metadata"];
        [&object["kind"], &meta["namespace"], &meta["name"]]
            .map(|part| part.as_str().unwrap_or_default().to_string())
    };
    let objects: BTreeMap<[String; 3], Value> = objects.map(|object| (name(&object), object)).collect();
    let objects: Vec<Value> = objects.into_values().collect();
    let listed = follow(&objects, false);
    let news = follow(&objects, true);
    assert_eq!(specs(&listed), specs(&news));
}

fn own() -> OwnAddresses {
    ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().expect("an address")).into()
}

fn follow(objects: &[Value], news: bool) -> State {
    let mut state = State::new("me", Options::default());
    state.set_own(&own());
    every_kind(&mut state, false);
    if news {
        every_kind(&mut state, true);
        state.follow(Duration::ZERO);
    }
    objects.iter().for_each(|object| tell(&mut state, object, news));
    if !news {
        every_kind(&mut state, true);
    }
    state.follow(Duration::ZERO);
    for spec in state.specs() {
        spec.validate().unwrap_or_else(|e| panic!("{spec:?}: {e}"));
    }
    state.notes().iter().for_each(|note| assert_one_line(&note.text));
    state
}

fn specs(state: &State) -> Vec<String> {
    let mut all: Vec<String> = state.specs().map(|spec| format!("{spec:?}")).collect();
    all.sort_unstable();
    all
}

fn tell(state: &mut State, object: &Value, news: bool) {
    fn of<T: DeserializeOwned>(object: &Value, news: bool) -> Option<Event<T>> {
        let object = serde_json::from_value(object.clone()).ok()?;
        Some(if news { Event::Apply(object) } else { Event::InitApply(object) })
    }
    let cache = &mut state.cache;
    match object["kind"].as_str() {
        Some("Service") => of(object, news).map(|event| cache.service(event)),
        Some("EndpointSlice") => of(object, news).map(|event| cache.slice(event)),
        Some("Node") => of(object, news).map(|event| cache.node_event(event)),
        Some("ServiceCIDR") => of(object, news).map(|event| cache.cidr(event)),
        Some("Namespace") => of(object, news).map(|event| cache.namespace(event)),
        _ => None,
    };
}

/// Begins or ends the list of every kind.
fn every_kind(state: &mut State, done: bool) {
    fn event<T>(done: bool) -> Event<T> {
        if done { Event::InitDone } else { Event::Init }
    }
    let cache = &mut state.cache;
    cache.service(event(done));
    cache.slice(event(done));
    cache.node_event(event(done));
    cache.cidr(event(done));
    cache.namespace(event(done));
}

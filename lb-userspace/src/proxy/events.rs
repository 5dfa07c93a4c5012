//! Events: what is wrong with objects, said where their owners look. Every node finds the same wrong, so an Event's name
//! says what it is of: whoever is second finds it there. Nobody waits for them.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, timeout},
};

use crate::source::kubernetes::note::Note;

/// Occurrences that may wait. Older ones are forgotten.
pub const WAITING: usize = 256;
/// The least time between two Events.
const PACE: Duration = Duration::from_millis(200);
/// How long a server may take for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long is one remembered: as long as an API server usually keeps it.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The longest text that an Event may have, in bytes.
const LONGEST: usize = 1000;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// `Service`, `EndpointSlice`, `Namespace`, `Node`.
    pub kind: &'static str,
    /// `namespace/name`, or a name.
    pub key: String,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Occurrence {
    /// To what.
    pub regarding: Regarding,
    /// Is something wrong?
    pub warning: bool,
    /// In a word.
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    /// In a sentence.
    pub text: String,
}

impl Occurrence {
    /// Something is wrong.
    pub fn warning(regarding: Regarding, reason: &'static str, action: &'static str, text: String) -> Self {
        Self { regarding, warning: true, reason, action, text }
    }

    /// What is said of an object.
    pub fn of_note(note: &Note) -> Self {
        let regarding = Regarding { kind: note.kind, key: note.object.to_string() };
        Self::warning(regarding, note.reason.name(), "Balance", note.text.clone())
    }
}

/// Writes Events until nobody tells of anything any more. `node`: the own Node.
pub async fn run(client: Client, node: String, mut told: broadcast::Receiver<Occurrence>) {
    let (mut known, mut since) = (HashSet::new(), Instant::now());
    let mut refused = false;
    loop {
        let occurrence = match told.recv().await {
            Ok(occurrence) => occurrence,
            Err(RecvError::Lagged(lost)) => {
                tracing::debug!(lost, "Events that weren't written in time");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if since.elapsed() > REMEMBERED {
            (since, known) = (Instant::now(), HashSet::new());
        }
        if !known.insert(occurrence.clone()) {
            continue;
        }
        let written = timeout(PATIENCE, write(&client, &node, &occurrence)).await;
        match written.unwrap_or_else(|_| Err("no answer".into())) {
            Ok(()) => refused = false,
            Err(e) => {
                // It may be said again.
                known.remove(&occurrence);
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!("Events can't be written: {e}");
                }
            }
        }
        sleep(PACE).await;
    }
}

async fn write(client: &Client, node: &str, occurrence: &Occurrence) -> Result<(), String> {
    let Occurrence { regarding: Regarding { kind, key }, warning, reason, action, text } = occurrence;
    let (namespace, name) = key.split_once('/').map_or((None, key.as_str()), |(ns, name)| (Some(ns), name));
    let (group, version) = match *kind {
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let objects: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    // Who looks at an object is shown what has its uid. A list of one, since no more than lists is asked of roles.
    let found = objects.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
    let uid = found.ok().and_then(|list| list.items.into_iter().next()?.metadata.uid);
    let mut hasher = DefaultHasher::new();
    (kind, uid.as_deref(), reason, text).hash(&mut hasher);
    let of_node = *kind == "Node";
    if of_node {
        // Each has its own.
        jiff::Timestamp::now().hash(&mut hasher);
    }
    let in_namespace = namespace.unwrap_or("default");
    let mut note = text.clone();
    while note.len() > LONGEST {
        note.pop();
    }
    let event = Event {
        action: Some((*action).into()),
        event_time: Some(MicroTime(jiff::Timestamp::now())),
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", hasher.finish())),
            namespace: Some(in_namespace.into()),
            ..ObjectMeta::default()
        },
        note: Some(note),
        reason: Some((*reason).into()),
        regarding: Some(ObjectReference {
            api_version: Some(if group.is_empty() { version.into() } else { format!("{group}/{version}") }),
            kind: Some((*kind).into()),
            name: Some(name.into()),
            namespace: namespace.map(Into::into),
            uid,
            ..ObjectReference::default()
        }),
        reporting_controller: Some("flowpin".into()),
        reporting_instance: Some(node.into()),
        type_: Some(if *warning { "Warning" } else { "Normal" }.into()),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(client.clone(), in_namespace);
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => Ok(()),
        // Another node was first.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

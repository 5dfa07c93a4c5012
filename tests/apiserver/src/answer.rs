//! What is answered: lists, watches, refusals.

use std::{collections::HashMap, io};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::{Fake, Fault, Sign};

/// Among what a request asks for: the namespace, which is in its path.
const NAMESPACE: &str = "namespace";

/// Is an object selected?
fn fits(object: &Value, query: &HashMap<String, String>) -> bool {
    let labels = &object["metadata"]["labels"];
    let label = query.get("labelSelector").is_none_or(|selector| match selector.strip_prefix('!') {
        Some(key) => labels.get(key).is_none(),
        None => selector.split_once('=').is_some_and(|(key, value)| labels[key] == value),
    });
    let field =
        |path: &str| path.split('.').fold(object, |value, key| &value[key]).as_str().unwrap_or_default();
    let fields = query.get("fieldSelector").is_none_or(|selector| match selector.split_once("!=") {
        Some((path, value)) => field(path) != value,
        None => selector.split_once('=').is_some_and(|(path, value)| field(path) == value),
    });
    let namespace =
        query.get(NAMESPACE).is_none_or(|namespace| object["metadata"]["namespace"] == **namespace);
    label && fields && namespace
}

fn status(code: u16, wait: u32) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("status {code}"),
           "reason": "Test", "code": code, "details": {"retryAfterSeconds": wait}})
}

pub async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    Query(mut query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let told = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    if fake.inner.lock().unwrap().token.as_ref().is_some_and(|token| told != Some(token.as_bytes())) {
        return (StatusCode::UNAUTHORIZED, Json(status(401, 0))).into_response();
    }
    if method == Method::POST {
        return create(&fake, &body);
    }
    let plural = uri.path().rsplit('/').next().unwrap().to_string();
    if let Some((_, rest)) = uri.path().split_once("/namespaces/") {
        let namespace = rest.split('/').next().unwrap_or_default();
        query.insert(NAMESPACE.into(), namespace.into());
    }
    let watches = query.get("watch").is_some_and(|w| w == "true" || w == "1");
    let gone = {
        let mut inner = fake.inner.lock().unwrap();
        fake.requests.lock().unwrap().push(uri.to_string());
        for fault in &mut inner.faults {
            if let Fault::Refuse { plural: of, status: code, times, wait } = fault
                && *of == plural
                && *times > 0
            {
                *times -= 1;
                let code = *code;
                return (StatusCode::from_u16(code).unwrap(), Json(status(code, *wait))).into_response();
            }
        }
        let from = query.get("resourceVersion").and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let gone = watches && from < inner.compacted;
        if gone && inner.faults.contains(&Fault::GoneAtOnce) {
            return (StatusCode::GONE, Json(status(410, 0))).into_response();
        }
        gone
    };
    if !watches {
        return list(&fake, &plural, &query);
    }
    if gone {
        return format!("{}\n", json!({"type": "ERROR", "object": status(410, 0)})).into_response();
    }
    follow(fake, plural, query).into_response()
}

/// Takes a new object, and keeps it for who asks what was created.
fn create(fake: &Fake, body: &Bytes) -> Response {
    let Ok(object) = serde_json::from_slice::<Value>(body) else {
        return (StatusCode::BAD_REQUEST, Json(status(400, 0))).into_response();
    };
    let mut created = fake.created.lock().unwrap();
    let name =
        |object: &Value| [&object["metadata"]["namespace"], &object["metadata"]["name"]].map(Clone::clone);
    if created.iter().any(|known| name(known) == name(&object)) {
        return (StatusCode::CONFLICT, Json(status(409, 0))).into_response();
    }
    created.push(object.clone());
    (StatusCode::CREATED, Json(object)).into_response()
}

fn list(fake: &Fake, plural: &str, query: &HashMap<String, String>) -> Response {
    let inner = fake.inner.lock().unwrap();
    let limit = query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
    let (version, from) = match query.get("continue").and_then(|token| token.split_once(':')) {
        Some((version, from)) => (version.parse().unwrap(), from.parse().unwrap()),
        None => (inner.version, 0),
    };
    if version < inner.compacted {
        return (StatusCode::GONE, Json(status(410, 0))).into_response();
    }
    let all = inner.objects.iter().filter(|((of, _), object)| of == plural && fits(object, query));
    let all: Vec<&Value> = all.map(|(_, object)| object).collect();
    let items: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
    let next = from + items.len();
    let more = if next < all.len() { format!("{version}:{next}") } else { String::new() };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more, "remainingItemCount": all.len() - next});
    Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
}

/// What a watch is told of a change.
fn event(
    query: &HashMap<String, String>,
    before: Option<&Value>,
    after: Option<&Value>,
    version: u64,
) -> Option<Value> {
    let was = before.filter(|object| fits(object, query));
    let is = after.filter(|object| fits(object, query));
    let (kind, object) = match (was, is) {
        (None, Some(object)) => ("ADDED", object.clone()),
        (Some(_), Some(object)) => ("MODIFIED", object.clone()),
        (Some(object), None) => {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = version.to_string().into();
            ("DELETED", object)
        }
        (None, None) => return None,
    };
    Some(json!({"type": kind, "object": object}))
}

fn follow(fake: Fake, plural: String, query: HashMap<String, String>) -> Response {
    struct Watching {
        fake: Fake,
        seen: u64,
        changed: watch::Receiver<u64>,
        signs: broadcast::Receiver<Sign>,
        breaks: bool,
        broken: bool,
    }
    let seen = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let (changed, signs) = (fake.changed.subscribe(), fake.signs.subscribe());
    let watching = Watching { fake, seen, changed, signs, breaks: false, broken: false };
    let events = stream::unfold(watching, move |mut w| {
        let (plural, query) = (plural.clone(), query.clone());
        async move {
            if w.broken {
                return Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), w));
            }
            loop {
                while let Ok(sign) = w.signs.try_recv() {
                    match sign {
                        Sign::Break => w.breaks = true,
                        Sign::Bookmark => return Some((Ok(bookmark(w.seen)), w)),
                    }
                }
                w.changed.borrow_and_update();
                let (mut text, seen) = {
                    let inner = w.fake.inner.lock().unwrap();
                    let new = inner.log.iter().filter(|(version, of, ..)| *version > w.seen && *of == plural);
                    let events = new.filter_map(|(version, _, before, after)| {
                        event(&query, before.as_ref(), after.as_ref(), *version)
                    });
                    (events.map(|event| format!("{event}\n")).collect::<String>(), inner.version)
                };
                w.seen = seen;
                if text.is_empty() {
                    tokio::select! {
                        changed = w.changed.changed() => changed.ok()?,
                        sign = w.signs.recv() => match sign.ok()? {
                            Sign::Break => w.breaks = true,
                            Sign::Bookmark => return Some((Ok(bookmark(w.seen)), w)),
                        },
                    }
                    continue;
                }
                if w.breaks {
                    text.truncate(text.len() / 2);
                    w.broken = true;
                }
                return Some((Ok(Bytes::from(text)), w));
            }
        }
    });
    Body::from_stream(events).into_response()
}

fn bookmark(version: u64) -> Bytes {
    let object =
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
    Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))
}

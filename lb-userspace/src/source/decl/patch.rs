//! Changes of a declaration: JSON Merge Patch (RFC 7396). What a patch names is replaced, what it names as `null` is
//! taken back, all else stays. Lists are replaced whole.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{BackendDecl, ForwardDecl, RemovalDecl, RemovalWithin, ServiceDecl, read};

/// A patch: an object.
pub type Patch = Map<String, Value>;

/// As RFC 7396 has it.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn merged<T: Serialize + DeserializeOwned>(decl: &T, patch: &Patch) -> Result<T, String> {
    let mut value = serde_json::to_value(decl).map_err(|e| e.to_string())?;
    merge(&mut value, &Value::Object(patch.clone()));
    read(value).map_err(|e| format!("the change is not one of a declaration: {e}"))
}

/// A name that a patch repeats may only be the one that is there.
fn same(patch: &Patch, key: &str, is: &str) -> Result<(), String> {
    match patch.get(key) {
        None => Ok(()),
        Some(Value::String(text)) if text == is => Ok(()),
        Some(other) => Err(format!(
            "{key} {other} is not \"{is}\", and can't be changed; add another, and remove this one"
        )),
    }
}

/// A service with a change. Its name stays.
///
/// # Errors
/// The result can't be read, in a sentence.
pub fn service(name: &str, decl: &ServiceDecl, patch: &Patch) -> Result<ServiceDecl, String> {
    same(patch, "name", name)?;
    let mut decl = ServiceDecl { name: name.into(), ..decl.clone() };
    // One source of packets may be changed although one word was for both.
    if patch.get("forward").is_some_and(Value::is_object)
        && let Some(ForwardDecl::Word(word)) = &decl.forward
    {
        decl.forward = Some(ForwardDecl::by_source(word));
    }
    // Likewise a deadline beside the policy.
    if patch.get("on_removal").is_some_and(Value::is_object) {
        decl.on_removal = decl.on_removal.map(|removal| RemovalDecl::Within(removal.parts()));
    }
    let there = serde_json::to_value(&decl).map_err(|e| e.to_string())?;
    // To take something back of what isn't there makes nothing of it.
    let vain = |key: &str, value: &Value| {
        there.get(key).is_none()
            && value.as_object().is_some_and(|parts| !parts.is_empty() && parts.values().all(Value::is_null))
    };
    let patch = patch.iter().map(|(key, value)| (spelled(key).to_string(), value.clone()));
    let patch = patch.filter(|(key, value)| !vain(key, value)).collect();
    let changed: ServiceDecl = merged(&decl, &patch)?;
    let said = |removal: &RemovalDecl| *removal != RemovalDecl::Within(RemovalWithin::default());
    let on_removal = changed.on_removal.filter(said);
    Ok(ServiceDecl { name: String::new(), on_removal, ..changed })
}

/// The file's names of lists are as good.
fn spelled(key: &str) -> &str {
    match key {
        "frontend" => "frontends",
        "backend" => "backends",
        key => key,
    }
}

/// A backend with a change. Its address stays.
///
/// # Errors
/// The result can't be read, in a sentence.
pub fn backend(address: &str, decl: &BackendDecl, patch: &Patch) -> Result<BackendDecl, String> {
    same(patch, "address", address)?;
    merged(&decl.named(address), patch)
}

#[cfg(test)]
mod tests;

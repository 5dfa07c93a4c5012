//! Bodies of requests to the API. The first byte says to which.

use flowpin::{
    api::{
        error::{ApiError, Refusal},
        extract,
        types::{BackendDecl, ConnectionClose, Detach, Drain, Patch, ServiceDecl},
    },
    model::Origin,
    source::{Runtime, decl::patch},
};
use serde::de::DeserializeOwned;

use crate::{assert_one_line, state};

/// What can be read is valid, or one line says why not; what is valid can be kept, and the state is one that the next agent
/// reads, to the same.
pub fn api(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind {
        b's' => read(body, add),
        b'c' => read(body, change),
        b'b' => read(body, |decl: BackendDecl| {
            if let Err(e) = decl.member("service", Origin::Cli) {
                refused(e);
            }
        }),
        b'd' => read(body, |_: Drain| ()),
        b'x' => read(body, |_: ConnectionClose| ()),
        b'o' => read(body, |_: Detach| ()),
        _ => {}
    }
}

/// What is answered then is a line.
fn refused(why: impl ToString) {
    assert_one_line(&Refusal::from(ApiError::Invalid(why.to_string())).line());
}

fn read<T: DeserializeOwned>(body: &[u8], then: impl FnOnce(T)) {
    match extract::body(body) {
        Ok(value) => then(value),
        Err(refusal) => assert_one_line(&refusal.line()),
    }
}

fn is_valid(name: &str, decl: &ServiceDecl) -> bool {
    match decl.spec(name, Origin::Cli).and_then(|spec| spec.validate()) {
        Ok(()) => true,
        Err(e) => {
            refused(e);
            false
        }
    }
}

fn add(decl: ServiceDecl) {
    let name = decl.name.clone();
    if !is_valid(&name, &decl) {
        return;
    }
    let mut runtime = Runtime::default();
    if let Err(e) = runtime.add(&name, decl) {
        return refused(e);
    }
    let text = serde_json::to_vec(&runtime).expect("a state can be written");
    let next = state::load(&text).unwrap_or_else(|e| panic!("the next agent can't read the state: {e}"));
    let declared = next.declared(&name).expect("the service is there");
    assert_eq!(Some(&declared), runtime.declared(&name).as_ref());
    assert!(is_valid(&name, &declared), "what was valid is no more: {declared:?}");
}

/// A change of a service that has one of everything.
fn change(change: Patch) {
    let all = include_bytes!("../../../fuzz/corpus/api/service-all");
    let decl: ServiceDecl = serde_json::from_slice(&all[1..]).expect("a service");
    match patch::service(&decl.name, &decl, &change) {
        Ok(decl) => {
            is_valid("service", &decl);
        }
        Err(why) => refused(why),
    }
}

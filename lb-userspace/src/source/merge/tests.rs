use super::*;
use crate::source::{
    config::parse,
    decl::{BackendDecl, ServiceDecl},
    runtime::RuntimeDrain,
};

const FILE: &str = "[[service]]\nname = \"a\"\nvip = \"10.96.0.1\"\nports = [\"80/tcp\"]\n[[service.backend]]\naddress = \"10.0.0.1\"\n";

fn runtime() -> Runtime {
    let mut runtime = Runtime::default();
    let backend = BackendDecl { weight: Some(3), ..BackendDecl::default() };
    for address in ["10.0.0.1", "10.0.0.2", "fd00::1"] {
        runtime.backends.entry("a".into()).or_default().insert(address.into(), backend.clone());
    }
    let drain = RuntimeDrain::begin(Some(9));
    runtime.drains.entry("a".into()).or_default().insert("10.0.0.1".into(), drain);
    runtime
}

#[test]
fn the_command_line_adds_to_what_the_file_declares() {
    let (file, good, runtime) = (parse(FILE, "f").unwrap(), Good::default(), runtime());
    let sources = Sources::local(&file.services, &good, &runtime);
    let mut notes = Vec::new();
    let all = sources.all(&mut notes);
    let spec = all[0].spec.as_ref().unwrap();
    assert_eq!(spec.backends.keys().collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(spec.backends["10.0.0.1"].weight, 1, "the file's");
    assert!(matches!(spec.backends["10.0.0.1"].admin, AdminState::Draining { .. }));
    assert!(notes.len() == 1 && notes[0].contains("backend 10.0.0.1 of service \"a\""), "{notes:?}");
    let aside = &all[0].aside;
    assert!(aside.len() == 1 && aside[0].backend.as_deref() == Some("fd00::1"), "{aside:?}");
    assert!(aside[0].error.contains("not of the VIP's family"), "{aside:?}");
}

#[test]
fn what_cant_be_read_keeps_what_it_was_with_what_was_added() {
    let mut good = Good::of(&parse(FILE, "f").unwrap());
    let file = parse(&FILE.replace("80/tcp", "0/tcp"), "f").unwrap();
    good.follow(&file, |_| false);
    let runtime = runtime();
    let declared = Sources::local(&file.services, &good, &runtime).one("a", &mut Vec::new()).unwrap();
    assert!(declared.spec.is_err());
    assert_eq!(declared.good.unwrap().backends.len(), 2);
}

#[test]
fn a_name_that_is_there_twice_is_what_it_was_or_the_first() {
    let file = parse(&(FILE.to_string() + &FILE.replace("10.96.0.1", "10.96.0.2")), "f").unwrap();
    let was = parse(&FILE.replace("10.96.0.1", "10.96.0.3"), "f").unwrap();
    let runtime = Runtime::default();
    for (good, vip) in [(Good::default(), "10.96.0.1"), (Good::of(&was), "10.96.0.3")] {
        let sources = Sources::local(&file.services, &good, &runtime);
        let all = sources.all(&mut Vec::new());
        assert_eq!(all.len(), 1);
        assert!(all[0].spec.as_ref().unwrap_err().contains("declared twice"));
        assert_eq!(all[0].good.as_ref().unwrap().frontends[0].addresses[0].to_string(), vip);
        assert_eq!(sources.one("a", &mut Vec::new()).unwrap().good, all[0].good);
    }
}

#[test]
fn the_file_wins_a_name() {
    let (file, good) = (parse(FILE, "f").unwrap(), Good::default());
    let mut runtime = Runtime::default();
    let decl =
        ServiceDecl { vip: Some("10.96.0.9".into()), ports: vec!["80/tcp".into()], ..Default::default() };
    runtime.services.insert("a".into(), decl.clone());
    runtime.services.insert("b".into(), decl);
    let mut notes = Vec::new();
    let all = Sources::local(&file.services, &good, &runtime).all(&mut notes);
    let shown: Vec<_> = all.iter().map(|d| (d.name.as_str(), d.origin)).collect();
    assert_eq!(shown, [("a", Origin::File), ("b", Origin::Cli)]);
    assert!(notes[0].contains("service \"a\" is declared by the config file"), "{notes:?}");
}

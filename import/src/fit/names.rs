//! Names of services: unique, and of the characters that Flowpin takes.

use std::collections::BTreeSet;

use crate::model::Service;

/// Longest name, in bytes.
const LONGEST: usize = 253;

/// Gives each a name of its own.
pub fn fit(services: &mut [Service]) {
    let mut taken = BTreeSet::new();
    for service in services {
        let clean = clean(&service.name);
        let mut name = clean.clone();
        let mut number = 2_u32;
        while !taken.insert(name.clone()) {
            name = format!("{clean}-{number}");
            number += 1;
        }
        if name != service.name {
            let why = if clean == service.name {
                format!("Another service has that name: this one is {name:?} here.")
            } else {
                format!("{:?} has characters that Flowpin's names don't: it is {name:?} here.", service.name)
            };
            service.note(service.at, why);
        }
        service.name = name;
    }
}

/// What of a name is usable, with `-` for the rest.
fn clean(name: &str) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let text: String = name.chars().map(|c| if ok(c) { c } else { '-' }).take(LONGEST - 8).collect();
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if text.split(['/', ':']).any(odd) {
        let joined = text.replace(['/', ':'], "-");
        return if odd(&joined) { "service".into() } else { joined };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_one_that_is_taken() {
        for (name, want) in [
            ("pg", "pg"),
            ("ns/pg:5432", "ns/pg:5432"),
            ("a b", "a-b"),
            ("fd00::1", "fd00--1"),
            ("", "service"),
            ("..", "service"),
            ("/", "-"),
            ("é", "-"),
        ] {
            assert_eq!(clean(name), want, "{name}");
        }
        assert_eq!(clean(&"x".repeat(1000)).len(), LONGEST - 8);
    }
}

//! No input panics, whatever it is: bytes, and files of which pieces are missing, twice or elsewhere. What comes
//! out is TOML, and no directive is lost.

use std::path::Path;

use flowpin_import::{Format, import};
use proptest::prelude::*;

const FILES: [(Format, &str); 4] = [
    (Format::Haproxy, "haproxy.cfg"),
    (Format::Ipvsadm, "ipvsadm.rules"),
    (Format::Keepalived, "keepalived.conf"),
    (Format::Nginx, "nginx.conf"),
];

/// Words and signs of all formats, in any order.
const PIECES: &str = concat!(
    "(?s)(server|listen|bind|-A|-a|-t|virtual_server|stream|",
    "[{};\"'\\\\$@#!:\\[\\]0-9.a-c \n\t=-]|é|\u{2028}|\u{0}){0,200}"
);

fn holds(format: Format, text: &str) -> Result<(), TestCaseError> {
    // A broken block is an error with its line.
    let Ok(imported) = import(format, text) else { return Ok(()) };
    let parsed = imported.text.parse::<toml_edit::DocumentMut>();
    prop_assert!(parsed.is_ok(), "{parsed:?}\n{}", imported.text);
    for item in imported.account.items() {
        prop_assert!(item.translated || item.off || item.noted, "{item:?} has got lost");
    }
    Ok(())
}

/// A file with lines and words of it cut, doubled and moved.
fn mutated() -> impl Strategy<Value = (Format, String)> {
    let changes =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6_u8), 1..24);
    (prop::sample::select(&FILES[..]), changes).prop_map(|((format, name), changes)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name);
        let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(Into::into).collect();
        for (a, b, change) in changes {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
            match change {
                0 => drop(lines.remove(a)),
                1 => lines.insert(b, lines[a].clone()),
                2 => lines.swap(a, b),
                3 => lines[a] = words(&lines[a]).into_iter().rev().collect::<Vec<_>>().join(" "),
                4 => lines[a] = format!("{} {}", lines[a], lines[b].trim()),
                _ => lines[a] = lines[a].chars().filter(|c| !c.is_ascii_digit()).collect(),
            }
            if lines.is_empty() {
                lines.push(String::new());
            }
        }
        (format, lines.join("\n"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_mutated_files((format, text) in mutated()) {
        holds(format, &text)?;
    }

    #[test]
    fn of_bytes(bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes);
        for format in Format::ALL {
            holds(format, &text)?;
        }
    }

    #[test]
    fn of_what_looks_like_a_file(text in PIECES) {
        for format in Format::ALL {
            holds(format, &text)?;
        }
    }
}

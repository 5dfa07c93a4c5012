//! Each format's file, with every directive of its manual that concerns layer 4, and what comes out. `UPDATE=1
//! cargo test -p flowpin-import` writes the latter anew; review decides.

use std::{collections::BTreeSet, path::Path};

use flowpin_import::{Format, Imported, import};

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// What a file is called, and which lines of it say nothing.
const FILES: [(Format, &str); 4] = [
    (Format::Haproxy, "haproxy.cfg"),
    (Format::Ipvsadm, "ipvsadm.rules"),
    (Format::Keepalived, "keepalived.conf"),
    (Format::Nginx, "nginx.conf"),
];

fn imported(format: Format, name: &str) -> Imported {
    import(format, &read(name)).unwrap()
}

/// Lines that say nothing: empty, comments, and what only closes a block.
fn is_blank(format: Format, line: &str) -> bool {
    let text = line.trim();
    text.is_empty()
        || text.starts_with('#')
        || matches!(format, Format::Keepalived | Format::Nginx) && matches!(text, "}" | "{")
        || format == Format::Keepalived && text.starts_with('!')
}

#[test]
fn each_file_becomes_what_it_did() {
    for (format, name) in FILES {
        let golden = file(name).with_extension("toml");
        let text = imported(format, name).text;
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        let want = std::fs::read_to_string(&golden).unwrap();
        for (i, (got, want)) in text.lines().zip(want.lines()).enumerate() {
            assert_eq!(got, want, "{} line {}", golden.display(), i + 1);
        }
        assert_eq!(text.len(), want.len(), "{}", golden.display());
    }
}

#[test]
fn each_line_is_translated_or_named() {
    for (format, name) in FILES {
        let source = read(name);
        let imported = imported(format, name);
        let mut covered = BTreeSet::new();
        for item in imported.account.items() {
            assert!(
                item.translated || item.off || item.noted,
                "{name} line {}: {:?} has got lost",
                item.line,
                item.text
            );
            let place = match item.last == item.line {
                true => format!("# line {}: ", item.line),
                false => format!("# lines {}-{}: ", item.line, item.last),
            };
            assert!(
                !item.noted || imported.text.contains(&place),
                "{name}: no comment names {place:?} {:?}",
                item.text
            );
            covered.extend(item.line..=item.last);
        }
        for (i, line) in source.lines().enumerate() {
            assert!(
                is_blank(format, line) || covered.contains(&(i + 1)),
                "{name} line {}: {line:?} is nowhere",
                i + 1
            );
        }
        assert!(source.lines().count() >= 190, "{name} is short");
    }
}

#[test]
fn every_output_is_toml_and_so_are_its_comments() {
    for (format, name) in FILES {
        let text = imported(format, name).text;
        let document: toml_edit::DocumentMut = text.parse().unwrap();
        assert!(document.contains_key("service"), "{name}");
        for line in text.lines() {
            assert!(
                !line.starts_with('#') || line.contains(" = ") || line.chars().count() <= 120,
                "{name}: {line:?} is long"
            );
        }
    }
}

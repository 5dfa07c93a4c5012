//! Config files: the examples, and what the documentation shows.

use flowpin::source::{config, merge};

use crate::{
    blocks::{Code, code},
    root, texts,
};

#[track_caller]
fn good(place: &str, text: &str) {
    let config = config::parse(text, place).unwrap_or_else(|e| panic!("{place}: {e}"));
    let (_, rejected) = merge::alone(&config);
    assert!(rejected.is_empty(), "{place}: {rejected:?}");
}

#[test]
fn every_example_is_a_good_config_and_is_listed() {
    let list = std::fs::read_to_string(root().join("examples/README.md")).expect("the list");
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).expect("examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let name = path.file_name().expect("a name").to_str().expect("text");
            good(&format!("examples/{name}"), &std::fs::read_to_string(&path).expect("text"));
            assert!(list.contains(&format!("]({name})")), "examples/README.md doesn't list {name}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");
}

#[test]
fn every_config_in_the_documentation_is_good() {
    let mut seen = 0;
    for (file, text) in texts() {
        for code in code(&text) {
            let Code::Block { language, lines, line } = code else { continue };
            if language == "toml" || language.is_empty() && lines[0].starts_with('[') {
                good(&format!("{file}:{line}"), &lines.join("\n"));
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "{seen} configs");
}

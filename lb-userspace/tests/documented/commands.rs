//! Commands: each that a text shows is one that the binary takes. Those that need no agent are run as they are, with files that are there.

use std::{collections::BTreeSet, process::Command};

use clap::{CommandFactory, Parser, error::ErrorKind};
use flowpin::cli::Cli;

use crate::{
    blocks::{Code, code},
    root, shell, texts,
};

/// Where the texts have them, and without `flowpin`.
fn shown() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for (file, text) in texts() {
        for code in code(&text) {
            if let Code::Block { language, lines, line } = code
                && ["", "sh"].contains(&language.as_str())
            {
                all.extend(shell::calls(&lines).into_iter().map(|call| (format!("{file}:{line}"), call)));
            }
        }
    }
    all
}

/// With the variable of loops given a value.
fn filled(call: &[String]) -> Vec<String> {
    call.iter().map(|word| word.replace("$i", "1")).collect()
}

#[test]
fn every_command_is_understood() {
    let all = shown();
    for (place, call) in &all {
        let words = filled(call);
        let parsed = Cli::try_parse_from(["flowpin".to_string()].iter().chain(&words));
        if let Err(e) = parsed {
            assert_eq!(e.kind(), ErrorKind::DisplayHelp, "{place}: flowpin {}: {e}", words.join(" "));
        }
    }
    let files: BTreeSet<&str> = all.iter().filter_map(|(place, _)| place.split(':').next()).collect();
    for file in
        ["README.md", "docs/first-hour.md", "docs/operations.md", "docs/cluster.md", "docs/kubernetes.md"]
    {
        assert!(files.contains(file), "{file} has no command, or none is found");
    }
    assert!(all.len() >= 60, "{} commands", all.len());
}

/// Commands within sentences name parts of what there is: nouns, verbs and flags.
#[test]
fn every_command_in_a_sentence_exists() {
    let mut seen = 0;
    for (file, text) in texts() {
        for code in code(&text) {
            if let Code::Inline { text, line } = code
                && let Some(rest) = text.strip_prefix("flowpin ")
            {
                seen += 1;
                exists(rest).unwrap_or_else(|e| panic!("{file}:{line}: {text}: {e}"));
            }
        }
    }
    assert!(seen >= 60, "{seen} commands");
}

fn exists(text: &str) -> Result<(), String> {
    let root = Cli::command();
    let mut command = &root;
    let mut leaf = false;
    for word in text.split_whitespace() {
        if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split('=').next().unwrap_or(flag);
            let args = command.get_arguments().chain(root.get_arguments());
            let known = args.filter_map(clap::Arg::get_long).any(|long| long == name);
            if !known && !["help", "version"].contains(&name) {
                return Err(format!("{} has no --{name}", command.get_name()));
            }
        } else if command.has_subcommands() && !leaf {
            // `import haproxy|nginx` and the like.
            match command.find_subcommand(word) {
                Some(found) => command = found,
                None if command.get_name() == "cluster" || word.starts_with('-') || word == "help" => {
                    leaf = true
                }
                None => return Err(format!("{} has no {word:?}", command.get_name())),
            }
        } else {
            leaf = true;
        }
    }
    Ok(())
}

/// A file of that kind which is there.
fn sample(format: &str) -> String {
    let name = match format {
        "haproxy" => "haproxy.cfg",
        "ipvsadm" => "ipvsadm.rules",
        "keepalived" => "keepalived.conf",
        "nginx" => "nginx.conf",
        other => panic!("there is no sample of {other}"),
    };
    format!("import/tests/files/{name}")
}

/// The command with files that are there in the place of those that it names; `None`: it needs an agent or a node.
fn runnable(call: &[String], scratch: &str) -> Option<Vec<String>> {
    let mut words = filled(call);
    match words.first()?.as_str() {
        "check" => {
            if let Some(at) = words.iter().position(|word| word == "--config")
                && !root().join(&words[at + 1]).is_file()
            {
                words[at + 1] = "packaging/flowpin.toml".into();
            }
        }
        "import" => words[2] = sample(&words[1]),
        "cluster" if words.get(1)? == "keygen" => words[2] = scratch.into(),
        "completions" => {}
        _ => return None,
    }
    Some(words)
}

#[test]
fn every_command_that_needs_no_agent_runs() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut run = BTreeSet::new();
    for (place, call) in shown() {
        let Some(words) = runnable(&call, scratch.path().to_str().expect("text")) else { continue };
        run.insert(words[0].clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowpin"));
        command.args(&words).current_dir(root()).env_remove("FLOWPIN_API_SOCKET");
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: flowpin {}: {said}", words.join(" "));
        assert!(words[0] == "cluster" || !output.stdout.is_empty(), "{place}: flowpin {}", words.join(" "));
    }
    assert_eq!(run.into_iter().collect::<Vec<_>>(), ["check", "cluster", "completions", "import"]);
}

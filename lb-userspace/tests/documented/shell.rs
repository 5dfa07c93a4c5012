//! As much of a shell's language as the documentation's commands have.

/// Words before a command that has another one run.
const BEFORE: [&str; 5] = ["sudo", "do", "then", "until", "exec"];

/// Calls of `flowpin` in lines of a shell, each with its words after that one.
pub fn calls(lines: &[String]) -> Vec<Vec<String>> {
    let mut joined = String::new();
    for line in lines {
        match line.strip_suffix('\\') {
            Some(begun) => joined.extend([begun.trim(), " "]),
            None => joined.extend([line.trim(), "\n"]),
        }
    }
    joined.lines().flat_map(|line| simple(remark(line))).filter_map(|words| call(&words)).collect()
}

/// A line without the remark behind it: after a hash, or after two spaces.
fn remark(line: &str) -> &str {
    let end = |mark: &str| line.find(mark).unwrap_or(line.len());
    &line[..end(" # ").min(end("  "))]
}

/// The words of its commands, without quotes and what is redirected.
fn simple(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote) = (None::<String>, None);
    // Is the next word a file that is redirected to or from?
    let mut file = false;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '|' | ';' | '&' | '(' | ')' | '<' | '>') => {
                let number = |word: &String| c == '>' && word.chars().all(|c| c.is_ascii_digit());
                if let Some(word) = word.take().filter(|word| !number(word))
                    && !std::mem::take(&mut file)
                {
                    commands.last_mut().expect("one").push(word);
                }
                match c {
                    ' ' => {}
                    '<' | '>' => file = true,
                    _ => commands.push(Vec::new()),
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    commands
}

/// Is it a call of `flowpin`, by itself or by what runs others?
fn call(words: &[String]) -> Option<Vec<String>> {
    let is_flowpin = |word: &String| word == "flowpin" || word.ends_with("/flowpin");
    let direct = words.iter().position(|word| !word.contains('=') && !BEFORE.contains(&word.as_str()));
    let first = words.get(direct?)?;
    let place = match first.as_str() {
        "nsenter" => direct? + 1 + words[direct? + 1..].iter().position(|word| !word.starts_with('-'))?,
        "kubectl" => 1 + words.iter().position(|word| word == "--")?,
        _ => direct?,
    };
    words.get(place).filter(|word| is_flowpin(word))?;
    Some(words[place + 1..].to_vec())
}

#[test]
fn calls_are_found() {
    let found = |text: &str| calls(&text.lines().map(String::from).collect::<Vec<_>>());
    for (text, want) in [
        ("flowpin status      is it well?", "status"),
        ("flowpin a # remark", "a"),
        ("x -n | flowpin import ipvsadm - > y.toml", "import ipvsadm -"),
        ("RUST_LOG=debug flowpin agent", "agent"),
        ("nsenter --net=/run/x flowpin agent --config a.toml 2>log &", "agent --config a.toml"),
        ("kubectl -n a exec b -- flowpin status", "status"),
        ("for i in 1 2; do flowpin backend add a $i; done", "backend add a $i"),
        ("flowpin service add a \\\n    --vip 10.0.0.1", "service add a --vip 10.0.0.1"),
        ("flowpin a 'b c'", "a b c"),
        ("flowpin a >/etc/flowpin && echo", "a"),
    ] {
        let calls = found(text);
        assert_eq!(calls.iter().map(|words| words.join(" ")).collect::<Vec<_>>(), [want], "{text}");
    }
    for other in ["helm install flowpin chart", "systemctl enable --now flowpin", "echo flowpin"] {
        assert!(found(other).is_empty(), "{other}");
    }
}

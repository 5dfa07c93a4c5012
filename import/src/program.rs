//! Programs that check a server, as their formats start them: without a shell.

use std::net::IpAddr;

use crate::model::{Command, Host};

/// Looks a program up by the variable `PATH`, and sets variables for it.
const ENV: &str = "/usr/bin/env";

/// A program with its arguments, as Flowpin starts it; `variables` are `NAME=VALUE`. `None`: it can't be told.
pub fn command(words: Vec<String>, variables: Vec<String>) -> Option<Command> {
    let program = words.first()?;
    let named = program.starts_with('/') || !program.is_empty() && !program.contains('/');
    // An argument with = would be another variable to it.
    let env = !program.starts_with('/') || !variables.is_empty();
    let told = named && !(env && (program.contains('=') || program.starts_with('-')));
    told.then(|| {
        let before = env.then(|| ENV.to_string());
        before.into_iter().chain(variables).chain(words).collect()
    })
}

/// Would Flowpin put something of its own there, or is there a byte that no argument has?
pub fn is_odd(word: &str) -> bool {
    word.contains("{address}") || word.contains("{port}") || word.contains('\0')
}

/// A command line in words: whitespace parts them, quotes of either kind hold them together, and a backslash takes
/// the next sign as it is. `None`: a quote has no end, or a backslash and a letter stand for some other sign.
pub fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (_, '\\') => {
                let next = chars.next().filter(|c| !c.is_ascii_alphanumeric())?;
                word.get_or_insert_default().push(next);
            }
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Arguments of one server's program as those of any server's: its address and port in them are `{address}` and
/// `{port}`. A port is known by standing alone, behind the address, or behind `=`: other numbers may be anything.
pub fn of_any(words: Vec<String>, host: &Host, port: Option<u16>) -> Vec<String> {
    let mut words = words.into_iter();
    let program = words.next();
    let argument = |word: String| {
        let word = match host {
            Host::Address(address) if word.parse() == Ok(*address) => return "{address}".into(),
            Host::Address(address) => with_address(&word, *address),
            Host::Name(_) => word,
        };
        port.map_or(word.clone(), |port| with_port(&word, &port.to_string()))
    };
    program.into_iter().chain(words.map(argument)).collect()
}

/// With the address where it is no part of another.
fn with_address(word: &str, address: IpAddr) -> String {
    let text = address.to_string();
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || address.is_ipv6() && c == ':';
    let (mut out, mut rest) = (String::new(), word);
    while let Some(at) = rest.find(&text) {
        let (before, found) = rest.split_at(at);
        let after = &found[text.len()..];
        let whole = !before.ends_with(inner) && !after.starts_with(inner);
        out.push_str(before);
        out.push_str(if whole { "{address}" } else { &text });
        rest = after;
    }
    out + rest
}

fn with_port(word: &str, port: &str) -> String {
    if word == port {
        return "{port}".into();
    }
    for before in ["{address}:", "[{address}]:"] {
        let Some(at) = word.find(&format!("{before}{port}")) else { continue };
        let (start, rest) = word.split_at(at + before.len());
        let after = &rest[port.len()..];
        if !after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return format!("{start}{{port}}{after}");
        }
    }
    match word.rsplit_once('=') {
        Some((name, value)) if value == port => format!("{name}={{port}}"),
        _ => word.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_words_and_no_shell_looks_at_them() {
        let of = |line| words(line).unwrap().join("|");
        assert_eq!(of("  /bin/a b  'c d' \"e 'f'\"g ''"), "/bin/a|b|c d|e 'f'g|");
        assert_eq!(of(r"a\ b \$X $X | c > d"), "a b|$X|$X|||c|>|d");
        assert_eq!(of(""), "");
        for odd in ["a 'b", "a\\", r"a\n"] {
            assert_eq!(words(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_server_s_own_address_and_port_become_any_server_s() {
        let of = |word: &str, host: &str, port| {
            let words = of_any(texts(&["/bin/10.0.0.1", word]), &crate::values::host(host), port);
            assert_eq!(words[0], "/bin/10.0.0.1");
            words[1].clone()
        };
        for (word, want) in [
            ("10.0.0.1", "{address}"),
            ("10.0.0.1:80", "{address}:{port}"),
            ("http://10.0.0.1:80/x", "http://{address}:{port}/x"),
            ("http://10.0.0.1:8080/", "http://{address}:8080/"),
            ("80", "{port}"),
            ("--port=80", "--port={port}"),
            ("-H10.0.0.1", "-H10.0.0.1"),
            ("-H=10.0.0.1", "-H={address}"),
            ("10.0.0.12,110.0.0.1,10.0.0.1", "10.0.0.12,110.0.0.1,{address}"),
            ("x80", "x80"),
            ("180", "180"),
        ] {
            assert_eq!(of(word, "10.0.0.1", Some(80)), want, "{word}");
        }
        assert_eq!(of("fd00:0::1", "fd00::1", Some(80)), "{address}");
        assert_eq!(of("[fd00::1]:80", "fd00::1", Some(80)), "[{address}]:{port}");
        assert_eq!(of("[fd00::1:2]", "fd00::1", Some(80)), "[fd00::1:2]");
        assert_eq!(of("db.example", "db.example", Some(80)), "db.example");
        assert_eq!(of("80", "10.0.0.1", None), "80");
    }

    #[test]
    fn a_program_has_a_path_or_is_looked_up() {
        let of = |words: &[&str], variables: &[&str]| command(texts(words), texts(variables));
        assert_eq!(of(&["/bin/a=b", "c"], &[]), Some(texts(&["/bin/a=b", "c"])));
        assert_eq!(of(&["a", "b=c"], &[]), Some(texts(&["/usr/bin/env", "a", "b=c"])));
        assert_eq!(of(&["/bin/a"], &["B=1"]), Some(texts(&["/usr/bin/env", "B=1", "/bin/a"])));
        for odd in [&[][..], &[""], &["./a"], &["a=b"], &["-i"]] {
            assert_eq!(of(odd, &[]), None, "{odd:?}");
        }
        assert_eq!(of(&["/bin/a=b"], &["B=1"]), None);
        assert!(is_odd("a{port}") && is_odd("\0") && !is_odd("{a}"));
    }
}

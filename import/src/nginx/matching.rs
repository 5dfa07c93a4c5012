//! `match` of health checks: what is sent to a server, and what it must answer.

use lb_text::escape;

use crate::{
    account::{Account, Id, Note, Said},
    directive::Directive,
    model::{Check, Probe, Step},
    talk::matches,
};

const UNTOLD: &str = "Flowpin's checks want a text or a regular expression (of the regex crate) for an answer: it \
     looks whether the server takes connections. Write health.talk for what can be told so.";
const UNTOLD_UDP: &str = "Flowpin sends a text and wants an answer (health.send), or else an empty datagram that \
     mustn't be refused: write health.send if there is a text that the server answers.";

/// See the module.
pub struct Match {
    at: Id,
    send: Option<Said<Vec<u8>>>,
    /// `None` in it: it can't be told.
    expect: Option<Said<Option<Step>>>,
}

impl Match {
    /// Reads one.
    pub fn read(account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) -> Self {
        let mut made = Self { at: directive.enter(account), send: None, expect: None };
        for inner in directive.inside() {
            let at = inner.enter_whole(account);
            let args: Vec<&str> = inner.args().iter().map(String::as_str).collect();
            match (inner.name(), args.as_slice()) {
                ("send", [text]) => made.send = Some(Said::new(bytes(text), at)),
                ("expect", args) => made.expect = Some(Said::new(expected(args), at)),
                _ => notes.push(Note::new(at, "A match of stream has a send and an expect.")),
            }
        }
        made
    }

    /// Has a check ask it, if that can be told; `named`: what names it.
    pub fn give(&self, named: Id, check: &mut Check, notes: &mut Vec<Note>) {
        let Self { at, send, expect } = self;
        let udp = matches!(check.probe, Probe::Udp(_));
        let probe = match (send, expect) {
            (Some(send), Some(_)) if udp => String::from_utf8(send.value.clone())
                .ok()
                .filter(|text| !text.is_empty())
                .map(|text| Probe::Udp(Some(Said::new(text, send.at)))),
            (send, Some(Said { value: Some(step), at })) if !udp => {
                let sent = send.iter().filter(|said| !said.value.is_empty());
                let sent = sent.map(|said| Said::new(Step::Send(escape(&said.value)), said.at));
                Some(Probe::Talk(sent.chain([Said::new(step.clone(), *at)]).collect()))
            }
            _ => None,
        };
        let expect_at = expect.as_ref().map(|said| said.at);
        match probe {
            Some(probe) => {
                check.probe = probe;
                check.same.extend([named, *at]);
                let answer = expect_at.filter(|_| udp);
                notes.extend(answer.map(|at| Note::new(at, "Any answer is a good one.")));
            }
            None => {
                let ids = [named, *at].into_iter().chain(send.iter().map(|said| said.at)).chain(expect_at);
                let remedy = if udp { UNTOLD_UDP } else { UNTOLD };
                notes.extend(ids.map(|id| Note::new(id, remedy)));
            }
        }
    }
}

/// `TEXT`, `~ REGEX`, `~* REGEX` without regard to case.
fn expected(args: &[&str]) -> Option<Step> {
    match args {
        ["~", text] => matches(&of_bytes("", text)),
        ["~*", text] => matches(&of_bytes("i", text)),
        [text] if !text.is_empty() && !text.starts_with('~') => Some(Step::Expect(escape(&bytes(text)))),
        _ => None,
    }
}

/// With flags. Where it is about bytes, `\xNN` is one, not a sign of Unicode.
fn of_bytes(flags: &str, text: &str) -> String {
    match (flags, text.contains("\\x") || !text.is_ascii()) {
        ("", false) => text.into(),
        (flags, false) => format!("(?{flags}){text}"),
        (flags, true) => format!("(?{flags}-u){text}"),
    }
}

/// Of a text in which `\xNN` is a byte.
fn bytes(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_texts_or_expressions() {
        let regex = |text: &str| Some(Step::Matches(text.into()));
        assert_eq!(expected(&["+OK\r"]), Some(Step::Expect(r"+OK\r".into())));
        assert_eq!(expected(&[r"a\x00\xffb\xg"]), Some(Step::Expect(r"a\0\xffb\\xg".into())));
        assert_eq!(expected(&["~", r"\+(OK|PONG)"]), regex(r"\+(OK|PONG)"));
        assert_eq!(expected(&["~*", "pong"]), regex("(?i)pong"));
        assert_eq!(expected(&["~", r"^\xff"]), regex(r"(?-u)^\xff"));
        assert_eq!(expected(&["~*", r"\x41"]), regex(r"(?i-u)\x41"));
        for odd in [&[][..], &[""], &["~"], &["~", "("], &["~", "(?!a)b"], &["~", "a*"], &["a", "b"]] {
            assert_eq!(expected(odd), None, "{odd:?}");
        }
    }
}

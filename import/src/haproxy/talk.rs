//! `tcp-check send` and `tcp-check expect`: steps of a conversation.

use lb_text::escape;

use crate::{model::Step, talk::matches};

/// What is said after `tcp-check`. `None`: Flowpin has no such step.
pub fn step(args: &[String]) -> Option<Step> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let args = match args.as_slice() {
        [step @ .., "comment", _] => step,
        all => all,
    };
    match args {
        // Of bytes that are no text.
        [.., text] if text.contains(char::REPLACEMENT_CHARACTER) => None,
        ["send", text] if !text.is_empty() => Some(Step::Send(escape(text.as_bytes()))),
        ["send-binary", digits] => bytes(digits).map(|bytes| Step::Send(escape(&bytes))),
        ["expect", "string", text] if !text.is_empty() => Some(Step::Expect(escape(text.as_bytes()))),
        ["expect", "binary", digits] => bytes(digits).map(|bytes| Step::Expect(escape(&bytes))),
        ["expect", "rstring", text] => matches(text),
        _ => None,
    }
}

/// Bytes by their hexadecimal digits, at least one.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            Some(u8::try_from(char::from(*high).to_digit(16)? << 4 | char::from(*low).to_digit(16)?).ok()?)
        }
        _ => None,
    };
    pairs.map(byte).collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &[&str]) -> Option<Step> {
        step(&line.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn steps_are_written_with_flowpin_s_escapes() {
        let send = |text: &str| Some(Step::Send(text.into()));
        assert_eq!(of(&["send", "PING\r\n"]), send(r"PING\r\n"));
        assert_eq!(of(&["send", "a\\b\x01é", "comment", "c"]), send(r"a\\b\x01é"));
        assert_eq!(of(&["send-binary", "50494e47ff00"]), send(r"PING\xff\0"));
        assert_eq!(of(&["expect", "string", "+OK"]), Some(Step::Expect("+OK".into())));
        assert_eq!(of(&["expect", "binary", "0A"]), Some(Step::Expect(r"\n".into())));
        let role = "role:(master|slave)";
        assert_eq!(of(&["expect", "rstring", role]), Some(Step::Matches(role.into())));
        for odd in [
            &["send", ""][..],
            &["send", "a\u{fffd}"],
            &["send-lf", "a"],
            &["send-binary", "123"],
            &["send-binary", "zz"],
            &["send-binary", ""],
            &["expect", "!", "string", "a"],
            &["expect", "rstring", "a*"],
            &["expect", "rstring", "("],
            &["expect", "min-recv", "3", "string", "a"],
            &["expect"],
        ] {
            assert_eq!(of(odd), None, "{odd:?}");
        }
    }
}

//! A config file in parts: each `[[service]]` with the tables below it, and the rest. So an error in one of ten thousand is that one's,
//! and one that is written as it was needs not be read again.

/// A service's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Where it begins, from 1.
    pub line: usize,
    /// As written.
    pub text: &'a str,
}

/// What a line begins.
#[derive(PartialEq, Eq)]
enum Header {
    /// A service.
    Service,
    /// A table of the service above it.
    Below,
    /// Something else.
    Other,
}

/// The header of a table, if a line is one.
fn header(line: &str) -> Option<Header> {
    let text = line.trim_start();
    let inner = text.strip_prefix('[')?;
    let (inner, double) = inner.strip_prefix('[').map_or((inner, false), |inner| (inner, true));
    let (path, rest) = inner.split_once(if double { "]]" } else { "]" })?;
    let rest = rest.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-. \t".contains(c);
    if !(rest.is_empty() || rest.starts_with('#')) || !path.chars().all(bare) {
        return None;
    }
    let mut keys = path.split('.').map(str::trim);
    Some(match (keys.next(), keys.next(), double) {
        (Some("service"), None, true) => Header::Service,
        (Some("service"), Some(_), _) => Header::Below,
        _ => Header::Other,
    })
}

/// The rest, with the lines of services empty, and the services.
pub fn split(text: &str) -> (String, Vec<Part<'_>>) {
    let (mut head, mut parts) = (String::new(), Vec::new());
    let mut begun: Option<(usize, usize)> = None;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match header(line) {
            None => {}
            Some(Header::Below) if begun.is_some() => {}
            Some(found) => {
                parts.extend(begun.take().map(|(line, from)| Part { line, text: &text[from..at] }));
                if found == Header::Service {
                    begun = Some((number + 1, at));
                }
            }
        }
        at += line.len();
        match begun {
            None => head.push_str(line),
            Some(_) => head.push('\n'),
        }
    }
    parts.extend(begun.map(|(line, from)| Part { line, text: &text[from..] }));
    (head, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_take_their_tables_along() {
        let text = "[agent]\npin_dir = \"/a\"\n[[service]] # one\nname = \"a\"\nports = [\n[\"x\"],\n]\n [[ service . backend ]]\n\
                    [service.health]\n[[interface]]\nmatch = \"e\"\n[[service]]\nname = \"b\"";
        let (head, parts) = split(text);
        let starts: Vec<_> = parts.iter().map(|part| (part.line, part.text.lines().count())).collect();
        assert_eq!(starts, [(3, 7), (12, 2)]);
        assert_eq!(head.lines().filter(|line| !line.is_empty()).count(), 4);
        assert_eq!(head.lines().nth(9), Some("[[interface]]"), "lines keep their numbers");
    }

    #[test]
    fn tables_of_no_service_are_left_to_who_reads_the_rest() {
        assert_eq!(split("[service.health]\ntype = \"tcp\"\n").1, []);
        assert_eq!(split("").1, []);
    }
}

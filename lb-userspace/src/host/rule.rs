//! What we want to know of a netfilter rule, whatever tool wrote it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// A rule that may keep answers from arriving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it is and how it is written: `iptables filter FORWARD: -m conntrack ...`.
    pub text: String,
    /// For IPv4?
    pub v4: bool,
    /// For IPv6?
    pub v6: bool,
    /// Interface that packets come in by, if it asks for one; a `+` or `*` at the end stands for anything.
    pub input: Option<String>,
    /// What it does.
    pub kind: Kind,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Drops or refuses forwarded packets of connections that conntrack doesn't know.
    DropsInvalid,
    /// Drops or refuses whatever no rule accepts.
    DropsRest,
    /// Replaces the source of what leaves.
    ReplacesSource {
        /// Only of what comes from here.
        from: Option<IpNet>,
        /// Only of what comes from elsewhere, rather.
        not: bool,
    },
}

impl Rule {
    /// Does it apply to what comes in by one of these interfaces?
    pub fn concerns(&self, interfaces: &BTreeSet<String>) -> bool {
        let Some(wanted) = &self.input else { return true };
        match wanted.strip_suffix(['+', '*']) {
            Some(prefix) => interfaces.iter().any(|name| name.starts_with(prefix)),
            None => interfaces.contains(wanted),
        }
    }

    /// Would it replace an answer's source?
    pub fn replaces(&self, source: IpAddr) -> bool {
        let Kind::ReplacesSource { from, not } = &self.kind else { return false };
        let family = if source.is_ipv4() { self.v4 } else { self.v6 };
        family && from.is_none_or(|net| net.contains(&source) != *not)
    }
}

/// Targets of jumps, and the chains that are reached from some of them.
pub(super) fn reached<'a>(starts: Vec<&'a str>, jumps: &[(&'a str, &'a str)]) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting = starts;
    while let Some(chain) = waiting.pop() {
        if reached.insert(chain) {
            waiting.extend(jumps.iter().filter(|(from, _)| *from == chain).map(|(_, to)| *to));
        }
    }
    reached
}

/// Longest rule that is shown whole, in characters.
const SHOWN: usize = 100;

/// A rule as it is shown.
pub(super) fn shown(place: &str, rule: &str) -> String {
    match rule.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{place}: {}...", &rule[..end]),
        None => format!("{place}: {rule}"),
    }
}

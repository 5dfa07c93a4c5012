//! From what `iptables-save` says to what `iptables-restore --noflush` is to be told.

use std::collections::BTreeMap;

use super::names;
use crate::host::iptables::{Line, tables as lines_of_tables};

/// Comment of a rule that keeps NAT at work; see [`Table::holds`].
const HOLDS: &str = "flowpin: NAT of connections that kube-proxy opened";

/// What is done with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It goes.
    Removed,
    /// A rule of somebody else's, this one, jumps to it: it stays, and is empty.
    Emptied(String),
    /// Likewise, and it stays as it is.
    Kept(String),
}

/// What kube-proxy has in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its chains.
    pub chains: BTreeMap<String, Treatment>,
    /// Rules that go from chains of the kernel's: chain, and the rest of the rule.
    pub jumps: Vec<(String, String)>,
    /// Once all that is removed nothing else asks for connection tracking, and the kernel would stop translating
    /// connections that are open: a rule that does nothing holds it.
    pub holds: bool,
}

fn comment<'a>(rule: &Line<'a>) -> Option<&'a str> {
    rule.text.split_once("--comment \"")?.1.split_once('"').map(|(comment, _)| comment)
}

/// Does a rule make the kernel track connections?
fn makes_track(rule: &Line<'_>) -> bool {
    rule.words.iter().any(|w| {
        matches!(*w, "conntrack" | "state" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" | "CT")
    })
}

/// What kube-proxy has, by table. Tables in which it has nothing are left out.
pub fn tables(text: &str) -> Vec<Table> {
    let (mut tables, mut tracks) = (Vec::new(), false);
    for (name, body) in lines_of_tables(text) {
        let (table, others) = table(name, body);
        tracks |= others;
        if !table.chains.is_empty() || !table.jumps.is_empty() {
            tables.push(table);
        }
    }
    for table in &mut tables {
        table.holds = table.name == "nat" && !table.jumps.is_empty() && !tracks;
    }
    tables
}

/// One, and whether rules that stay in it make the kernel track connections.
fn table(name: &str, body: &str) -> (Table, bool) {
    let declared = body.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let own = declared.filter(|chain| names::is_chain(name, chain));
    let mut chains: BTreeMap<String, Treatment> =
        own.map(|chain| (chain.to_string(), Treatment::Removed)).collect();
    let rules: Vec<Line<'_>> = body.lines().filter_map(Line::of).collect();
    let of_others = |rule: &&Line<'_>| !names::is_chain(name, rule.chain);
    let mut jumps = Vec::new();
    let mut tracks = false;
    for rule in rules.iter().filter(of_others) {
        let target = rule.target().filter(|target| names::is_chain(name, target));
        match target {
            Some(_) if comment(rule).is_some_and(names::is_jump) => {
                jumps.push((rule.chain.to_string(), rule.text.to_string()));
            }
            Some(target) => {
                tracks |= makes_track(rule);
                let why = format!("-A {} {}", rule.chain, rule.text);
                chains.insert(target.to_string(), Treatment::Emptied(why));
            }
            None => tracks |= makes_track(rule),
        }
    }
    keep_masquerade(&mut chains, &mut jumps, &mut tracks);
    // Nothing is left to be done with one that is empty already.
    chains.retain(|chain, treatment| {
        !matches!(treatment, Treatment::Emptied(_)) || rules.iter().any(|rule| rule.chain == chain)
    });
    (Table { name: name.into(), chains, jumps, holds: false }, tracks)
}

/// Somebody else has packets masqueraded by kube-proxy's chains: they go on as they are.
fn keep_masquerade(
    chains: &mut BTreeMap<String, Treatment>,
    jumps: &mut Vec<(String, String)>,
    tracks: &mut bool,
) {
    let used = names::MASQUERADE.iter().find_map(|chain| match chains.get(*chain) {
        Some(Treatment::Emptied(why)) => Some(why.clone()),
        _ => None,
    });
    let Some(why) = used else { return };
    for chain in names::MASQUERADE {
        if let Some(treatment) = chains.get_mut(chain) {
            *treatment = Treatment::Kept(why.clone());
        }
    }
    let kept = |chain: &str, text: &str| {
        Line::with(chain, text).target().is_some_and(|to| names::MASQUERADE.contains(&to))
    };
    jumps.retain(|(chain, text)| !kept(chain, text));
    *tracks = true;
}

/// What is to be told: all of a table, or nothing of it, happens at once.
pub fn script(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables {
        text.push_str(&format!("*{}\n", table.name));
        let emptied = table.chains.iter().filter(|(_, treatment)| !matches!(treatment, Treatment::Kept(_)));
        // One that is declared is emptied.
        emptied.for_each(|(chain, _)| text.push_str(&format!(":{chain} - [0:0]\n")));
        if table.holds {
            text.push_str(&format!(
                "-A POSTROUTING -m conntrack --ctstate DNAT -m comment --comment \"{HOLDS}\" -j RETURN\n"
            ));
        }
        for (chain, rule) in &table.jumps {
            text.push_str(&format!("-D {chain} {rule}\n"));
        }
        let removed = table.chains.iter().filter(|(_, treatment)| **treatment == Treatment::Removed);
        removed.for_each(|(chain, _)| text.push_str(&format!("-X {chain}\n")));
        text.push_str("COMMIT\n");
    }
    text
}

#[cfg(test)]
mod tests;

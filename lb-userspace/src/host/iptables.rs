//! What `iptables-save` and `ip6tables-save` say.

use super::rule::{Kind, Rule, reached, shown};

/// A line `-A CHAIN ...`.
pub(super) struct Line<'a> {
    /// The chain.
    pub chain: &'a str,
    /// All after its name.
    pub text: &'a str,
    /// That in words, without what is between quotes: comments.
    pub words: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// `None`: it is another line.
    pub fn of(line: &'a str) -> Option<Self> {
        let (chain, text) = line.strip_prefix("-A ")?.split_once(' ')?;
        Some(Self::with(chain, text))
    }

    /// From its parts.
    pub fn with(chain: &'a str, text: &'a str) -> Self {
        let words = text.split('"').step_by(2).flat_map(str::split_whitespace).collect();
        Self { chain, text, words }
    }

    /// The word after one of these.
    pub fn after(&self, options: &[&str]) -> Option<&'a str> {
        let at = self.words.iter().position(|w| options.contains(w))?;
        self.words.get(at + 1).copied()
    }

    /// The chain or the like where it leads.
    pub fn target(&self) -> Option<&'a str> {
        self.after(&["-j", "-g"])
    }
}

/// Tables: their names, and their lines.
pub(super) fn tables(text: &str) -> impl Iterator<Item = (&str, &str)> {
    // What comes before the first one is a comment.
    let first = usize::from(!text.starts_with('*'));
    let parts = text.split("\n*").skip(first).map(|part| part.trim_start_matches('*'));
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).map(|(name, body)| (name.trim(), body))
}

/// The rules of interest, in order.
pub fn rules(text: &str, v6: bool) -> Vec<Rule> {
    let mut found = Vec::new();
    tables(text).for_each(|(name, body)| of_table(name, body, v6, &mut found));
    found
}

fn of_table(table: &str, body: &str, v6: bool, found: &mut Vec<Rule>) {
    let tool = if v6 { "ip6tables" } else { "iptables" };
    let chains: Vec<(&str, &str)> =
        body.lines().filter_map(|l| l.strip_prefix(':')?.split_once(' ')).collect();
    let lines: Vec<Line<'_>> = body.lines().filter_map(Line::of).collect();
    let jumps: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|l| Some((l.chain, l.target()?)))
        .filter(|(_, to)| chains.iter().any(|(chain, _)| chain == to))
        .collect();
    let starts = match table {
        "nat" => vec!["POSTROUTING"],
        "raw" => Vec::new(),
        _ => vec!["PREROUTING", "FORWARD", "POSTROUTING"],
    };
    let on_path = reached(starts, &jumps);
    let mut marked: Vec<&str> = Vec::new();
    for line in lines.iter().filter(|l| on_path.contains(l.chain)) {
        // What follows is for packets with a mark only.
        if line.words.contains(&"--mark") && line.after(&["-j"]) == Some("RETURN") {
            marked.push(line.chain);
        }
        let kind = kind(table, line)
            .filter(|k| !matches!(k, Kind::ReplacesSource { .. }) || !marked.contains(&line.chain));
        let Some(kind) = kind else { continue };
        let text = shown(&format!("{tool} {table} {}", line.chain), line.text);
        let input = positive(&line.words, &["-i", "--in-interface"]).map(String::from);
        found.push(Rule { text, v4: !v6, v6, input, kind });
    }
    let drops = |(chain, policy): &&(&str, &str)| *chain == "FORWARD" && policy.starts_with("DROP");
    if table == "filter" && chains.iter().any(|c| drops(&c)) {
        let text = format!("{tool} filter FORWARD: policy DROP");
        found.push(Rule { text, v4: !v6, v6, input: None, kind: Kind::DropsRest });
    }
}

fn kind(table: &str, line: &Line<'_>) -> Option<Kind> {
    let words = &line.words;
    match line.after(&["-j", "--jump"])? {
        "DROP" | "REJECT" if drops_invalid(words) => Some(Kind::DropsInvalid),
        // Without any condition.
        "DROP" | "REJECT" if line.chain == "FORWARD" && words.first() == Some(&"-j") => Some(Kind::DropsRest),
        "MASQUERADE" | "SNAT"
            if table == "nat" && !words.contains(&"--mark") && !words.contains(&"--match-set") =>
        {
            let at = words.iter().position(|w| *w == "-s" || *w == "--source");
            let from = at.and_then(|at| words.get(at + 1)?.parse().ok());
            let not = at.is_some_and(|at| at > 0 && words[at - 1] == "!");
            Some(Kind::ReplacesSource { from, not })
        }
        _ => None,
    }
}

/// Of states with INVALID among them, or of all but some others.
fn drops_invalid(words: &[&str]) -> bool {
    let Some(at) = words.iter().position(|w| *w == "--ctstate" || *w == "--state") else { return false };
    let negated = at > 0 && words[at - 1] == "!";
    let invalid = words.get(at + 1).is_some_and(|states| states.split(',').any(|s| s == "INVALID"));
    invalid != negated
}

/// The word after one of these, unless it is negated.
fn positive<'a>(words: &[&'a str], options: &[&str]) -> Option<&'a str> {
    let at = words.iter().position(|w| options.contains(w))?;
    words.get(at + 1).copied().filter(|_| at == 0 || words[at - 1] != "!")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"# Generated by iptables-save v1.8.9 on Thu Nov 26 10:00:00 2026
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m conntrack --ctstate INVALID -j DROP
COMMIT
*filter
:INPUT ACCEPT [10:840]
:FORWARD DROP [0:0]
:KUBE-FORWARD - [0:0]
:UNUSED - [0:0]
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m comment --comment "kubernetes -j DROP rules" -j KUBE-FORWARD
-A FORWARD -i lan+ -m state --state INVALID,UNTRACKED -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP
-A FORWARD -m conntrack ! --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
-A UNUSED -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING ! -s 10.0.0.0/8 -o eth0 -j SNAT --to-source 192.0.2.1
-A POSTROUTING -o wan0 -j MASQUERADE
-A POSTROUTING -m set --match-set pods src -j MASQUERADE
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"#;

    fn of(kind: fn(&Kind) -> bool) -> Vec<Rule> {
        rules(SAMPLE, false).into_iter().filter(|r| kind(&r.kind)).collect()
    }

    #[test]
    fn rules_that_drop_what_conntrack_does_not_know() {
        let found = of(|k| *k == Kind::DropsInvalid);
        let texts: Vec<&str> = found.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(texts.len(), 3, "{texts:#?}");
        assert!(texts[0].starts_with("iptables filter FORWARD: -i lan+ -m state --state INVALID,UNTRACKED"));
        assert!(texts[1].contains("! --ctstate RELATED,ESTABLISHED -j DROP"));
        assert!(texts[2].starts_with("iptables filter KUBE-FORWARD: "));
        assert_eq!(found[0].input.as_deref(), Some("lan+"));
        let interfaces = |name: &str| [name.to_string()].into();
        assert!(found[0].concerns(&interfaces("lan3")) && !found[0].concerns(&interfaces("eth0")));
        assert!(found[1].concerns(&interfaces("eth0")));
    }

    #[test]
    fn what_drops_the_rest() {
        let found = of(|k| *k == Kind::DropsRest);
        assert_eq!(found[0].text, "iptables filter FORWARD: -j REJECT --reject-with icmp-host-prohibited");
        assert_eq!(found[1].text, "iptables filter FORWARD: policy DROP");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn rules_that_replace_the_source() {
        let found = of(|k| matches!(k, Kind::ReplacesSource { .. }));
        assert_eq!(found.len(), 3, "{found:#?}");
        let replaces = |source: &str| -> Vec<bool> {
            found.iter().map(|r| r.replaces(source.parse().unwrap())).collect()
        };
        assert_eq!(replaces("10.96.0.10"), [false, false, true]);
        assert_eq!(replaces("172.17.0.9"), [true, true, true]);
        assert_eq!(replaces("192.0.2.9"), [false, true, true]);
        assert_eq!(replaces("fd00::1"), [false, false, false], "another family");
    }

    #[test]
    fn nothing_to_find() {
        assert_eq!(rules("", false), []);
        assert_eq!(rules("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n", true), []);
        let six = rules("# c\n*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", true);
        assert_eq!(six[0].text, "ip6tables filter FORWARD: policy DROP");
        assert!(six[0].v6 && !six[0].v4);
    }
}

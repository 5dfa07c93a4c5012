//! What `nft list ruleset` says. Tables that iptables-nft made are among it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rule::{Kind, Rule, reached, shown};

/// A chain of a table.
#[derive(Debug, Default)]
struct Chain {
    name: String,
    /// `forward`, for a base chain.
    hook: Option<String>,
    nat: bool,
    drops: bool,
    rules: Vec<String>,
}

/// A table.
#[derive(Debug, Default)]
struct Table {
    family: String,
    name: String,
    chains: Vec<Chain>,
}

/// The rules of interest, in order.
pub fn rules(text: &str) -> Vec<Rule> {
    tables(text).iter().flat_map(of_table).collect()
}

/// Tables with their chains; sets, maps and the like are left out.
fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    // Braces that are open, and whether the second is a chain's.
    let (mut depth, mut in_chain) = (0usize, false);
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (opened, closed) = (line.matches('{').count(), line.matches('}').count());
        match (depth, words.as_slice()) {
            (0, ["table", family, name, ..]) => {
                tables.push(Table { family: (*family).into(), name: (*name).into(), chains: Vec::new() });
            }
            (1, ["chain", name, ..]) => {
                in_chain = true;
                if let Some(table) = tables.last_mut() {
                    table.chains.push(Chain { name: (*name).into(), ..Chain::default() });
                }
            }
            (1, _) => in_chain = false,
            (2.., [_, ..]) if in_chain && line != "}" => {
                if let Some(chain) = tables.last_mut().and_then(|t| t.chains.last_mut()) {
                    chain.line(line, &words, depth);
                }
            }
            _ => {}
        }
        depth = (depth + opened).saturating_sub(closed);
    }
    tables
}

impl Chain {
    fn line(&mut self, line: &str, words: &[&str], depth: usize) {
        let after = |word: &str| {
            let at = words.iter().position(|w| *w == word)?;
            words.get(at + 1).map(|w| w.trim_end_matches(';'))
        };
        if depth > 2 {
            // A set that goes over several lines.
            if let Some(last) = self.rules.last_mut() {
                last.push(' ');
                last.push_str(line);
            }
        } else if words.first() == Some(&"type") && after("hook").is_some() {
            self.hook = after("hook").map(String::from);
            self.nat = after("type") == Some("nat");
            self.drops = after("policy") == Some("drop");
        } else {
            self.rules.push(line.into());
        }
    }
}

fn of_table(table: &Table) -> Vec<Rule> {
    let (v4, v6) = match table.family.as_str() {
        "ip" => (true, false),
        "ip6" => (false, true),
        "inet" => (true, true),
        _ => return Vec::new(),
    };
    let mut jumps = Vec::new();
    for chain in &table.chains {
        for rule in &chain.rules {
            let words: Vec<&str> = rule.split([' ', ',', ';', '}']).collect();
            let pairs = words.windows(2).filter(|w| w[0] == "jump" || w[0] == "goto");
            jumps.extend(pairs.map(|w| (chain.name.as_str(), w[1])));
        }
    }
    let starts = |wanted: fn(&Chain) -> bool| {
        let base = table.chains.iter().filter(|c| wanted(c)).map(|c| c.name.as_str()).collect();
        reached(base, &jumps)
    };
    let on_hook = |c: &Chain| matches!(c.hook.as_deref(), Some("prerouting" | "forward" | "postrouting"));
    let on_path = starts(on_hook);
    let on_leaving = starts(|c| c.nat && c.hook.as_deref() == Some("postrouting"));
    let mut found = Vec::new();
    for chain in &table.chains {
        let name = chain.name.as_str();
        let place = format!("nft {} {} {name}", table.family, table.name);
        let forward = chain.hook.as_deref() == Some("forward");
        let add = |text: &str, kind| Rule { text: shown(&place, text), v4, v6, input: input(text), kind };
        for rule in &chain.rules {
            if on_path.contains(name) && drops_invalid(rule) {
                found.push(add(rule, Kind::DropsInvalid));
            } else if forward && drops_all(rule) {
                found.push(add(rule, Kind::DropsRest));
            } else if on_leaving.contains(name)
                && let Some(kind) = replaces_source(rule)
            {
                found.push(add(rule, kind));
            }
        }
        if forward && chain.drops {
            found.push(add("policy drop", Kind::DropsRest));
        }
    }
    found
}

/// `ct state invalid drop`, `ct state { invalid, untracked } counter drop`, `ct state vmap { invalid : drop, ... }`,
/// `ct state != { ... } drop`.
fn drops_invalid(rule: &str) -> bool {
    let Some((_, rest)) = rule.split_once("ct state ") else { return false };
    if let Some(map) = rest.strip_prefix("vmap ") {
        let pairs = map.trim_start_matches(['{', ' ']).split([',', '}']);
        return pairs.filter_map(|p| p.split_once(':')).any(|(state, verdict)| {
            state.trim() == "invalid" && matches!(verdict.trim(), "drop" | "reject")
        });
    }
    let (negated, rest) = rest.strip_prefix("!= ").map_or((false, rest), |rest| (true, rest));
    let (states, verdict) = match rest.strip_prefix('{') {
        Some(set) => set.split_once('}').unwrap_or((set, "")),
        None => rest.split_once(' ').unwrap_or((rest, "")),
    };
    let invalid = states.split(',').any(|s| s.trim() == "invalid");
    invalid != negated && verdict.split_whitespace().any(|w| w == "drop" || w == "reject")
}

/// Nothing but a verdict, and perhaps a counter before it.
fn drops_all(rule: &str) -> bool {
    let counter = |w: &&str| matches!(*w, "counter" | "packets" | "bytes") || w.parse::<u64>().is_ok();
    matches!(rule.split_whitespace().find(|w| !counter(w)), Some("drop" | "reject"))
}

fn replaces_source(rule: &str) -> Option<Kind> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let masquerades = words.contains(&"masquerade")
        || words.windows(2).any(|w| w[0] == "snat" && matches!(w[1], "to" | "ip" | "ip6"));
    // A mark or a set says whose; ours aren't.
    if !masquerades || words.contains(&"mark") || words.iter().any(|w| w.starts_with('@')) {
        return None;
    }
    let at = words.iter().position(|w| *w == "saddr");
    let not = at.is_some_and(|at| words.get(at + 1) == Some(&"!="));
    let from = at.and_then(|at| {
        let text = words.get(at + 1 + usize::from(not))?;
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    });
    // Several prefixes: which, is beyond this.
    (at.is_none() || from.is_some()).then_some(Kind::ReplacesSource { from, not })
}

/// The interface that a rule asks for, if it is one.
fn input(rule: &str) -> Option<String> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "iifname" || *w == "iif")?;
    words.get(at + 1)?.strip_prefix('"')?.strip_suffix('"').map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"table inet firewalld {
	ct helper helper-ftp-tcp {
		type "ftp" protocol tcp
		l3proto inet
	}

	set many {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2,
			     10.0.0.3 }
	}

	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state invalid drop
	}

	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_FORWARD_POLICIES
		reject with icmpx admin-prohibited
	}

	chain filter_FORWARD_POLICIES {
		iifname "eth1" ct state invalid,untracked counter packets 0 bytes 0 drop
		ct state vmap { established : accept,
				invalid : drop }
		ct state != { established, related } log prefix "no" drop
		ct state vmap { invalid : accept, new : drop }
	}

	chain nobody_jumps_here {
		ct state invalid drop
	}
}
# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "docker0" counter packets 3 bytes 252 masquerade
		oifname vmap { "eth0" : goto public }
		meta mark & 0x00004000 == 0x00004000 masquerade
	}
	chain public {
		oifname != "lo" masquerade
	}
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
	}
}
table ip6 fw {
	chain fwd {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}
table bridge b {
	chain fwd {
		type filter hook forward priority filter; policy drop;
	}
}
"#;

    fn of(kind: fn(&Kind) -> bool) -> Vec<Rule> {
        rules(SAMPLE).into_iter().filter(|r| kind(&r.kind)).collect()
    }

    #[test]
    fn rules_that_drop_what_conntrack_does_not_know() {
        let found = of(|k| *k == Kind::DropsInvalid);
        let texts: Vec<&str> = found.iter().map(|r| r.text.as_str()).collect();
        let place = "nft inet firewalld filter_FORWARD";
        assert_eq!(
            texts,
            [
                format!("{place}: ct state invalid drop"),
                format!(
                    "{place}_POLICIES: iifname \"eth1\" ct state invalid,untracked counter packets 0 bytes 0 drop"
                ),
                format!("{place}_POLICIES: ct state vmap {{ established : accept, invalid : drop }}"),
                format!("{place}_POLICIES: ct state != {{ established, related }} log prefix \"no\" drop"),
            ]
        );
        assert_eq!(found[1].input.as_deref(), Some("eth1"));
        assert!(found.iter().all(|r| r.v4 && r.v6));
    }

    #[test]
    fn what_drops_the_rest() {
        let found = of(|k| *k == Kind::DropsRest);
        let texts: Vec<&str> = found.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "nft inet firewalld filter_FORWARD: reject with icmpx admin-prohibited",
                "nft ip6 fw fwd: policy drop"
            ]
        );
        assert!(found[1].v6 && !found[1].v4);
    }

    #[test]
    fn rules_that_replace_the_source() {
        let found = of(|k| matches!(k, Kind::ReplacesSource { .. }));
        let replaces = |source: &str| -> Vec<bool> {
            found.iter().map(|r| r.replaces(source.parse().unwrap())).collect()
        };
        assert_eq!(replaces("172.17.3.4"), [true, true], "{found:#?}");
        assert_eq!(replaces("10.96.0.10"), [false, true]);
        assert_eq!(replaces("fd00::1"), [false, false]);
    }

    #[test]
    fn nothing_to_find() {
        assert_eq!(rules(""), []);
        assert_eq!(
            rules("table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority 0;\n\t}\n}\n"),
            []
        );
    }
}

//! kube-proxy's tables of nftables.

use serde::Deserialize;

use super::names;

/// A table that keeps NAT at work for connections that are open; see [`holds`].
pub const HOLDS: &str = "flowpin-holds-nat";

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    table: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    family: String,
    name: String,
}

/// Families in which kube-proxy has a table, as `nft -j list tables` says.
///
/// # Errors
/// It isn't a listing.
pub fn families(json: &str) -> Result<Vec<String>, String> {
    let listing: Listing =
        serde_json::from_str(json).map_err(|e| format!("what nft says can't be read: {e}"))?;
    let tables = listing.nftables.into_iter().filter_map(|entry| entry.table);
    let own = tables.filter(|t| t.name == names::NFT_TABLE && matches!(t.family.as_str(), "ip" | "ip6"));
    Ok(own.map(|t| t.family).collect())
}

/// Does a table of somebody else's keep NAT and connection tracking at work in a family? The kernel translates packets
/// of open connections for as long as some chain of NAT and some rule that asks for tracking is there.
pub fn holds(ruleset: &str, family: &str) -> bool {
    // Tables begin and end at the left.
    ruleset.split("\n}").any(|table| {
        let lines = table.lines().map(str::trim_start);
        let head = lines.clone().find(|line| line.starts_with("table "));
        let head: Vec<&str> = head.unwrap_or_default().split_whitespace().collect();
        let concerns = matches!(head.as_slice(), ["table", of, name, ..]
            if (*of == family || *of == "inet") && *name != names::NFT_TABLE);
        let nat = || lines.clone().any(|line| line.starts_with("type nat hook"));
        let words = ["ct state", "ct status", "masquerade", "snat", "dnat", "redirect"];
        let tracks = || {
            let text = table.to_ascii_lowercase();
            words.iter().any(|word| text.contains(word))
        };
        concerns && nat() && tracks()
    })
}

/// What `nft -f` is to be told: all of it happens at once, or nothing. `hold`: families in which NAT is to be kept.
pub fn script(families: &[String], hold: &[String]) -> String {
    let held = hold.iter().map(|family| {
        format!(
            "table {family} {HOLDS} {{\n  comment \"NAT of connections that kube-proxy opened\"\n  chain hold {{\n    \
             type nat hook postrouting priority 100; policy accept;\n    ct status dnat return\n  }}\n}}\n"
        )
    });
    let removed = families.iter().map(|family| format!("delete table {family} {}\n", names::NFT_TABLE));
    held.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_tables_are_found() {
        let table = |family: &str, name: &str| {
            format!(r#"{{"table": {{"family": "{family}", "name": "{name}", "handle": 1}}}}"#)
        };
        let list = |tables: &[String]| {
            let meta = r#"{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}"#.to_string();
            format!("{{\"nftables\": [{}]}}", [&[meta], tables].concat().join(", "))
        };
        for (tables, wanted) in [
            (vec![], vec![]),
            (vec![table("ip", "kube-proxy"), table("ip6", "kube-proxy")], vec!["ip", "ip6"]),
            (vec![table("ip", "filter"), table("ip6", "kube-proxy")], vec!["ip6"]),
            (vec![table("inet", "kube-proxy"), table("ip", "kube-proxy-mine")], vec![]),
        ] {
            assert_eq!(families(&list(&tables)), Ok(wanted.into_iter().map(String::from).collect()));
        }
        assert!(families("").unwrap_err().contains("can't be read"));
    }

    #[test]
    fn nat_is_held_by_others_or_by_us() {
        let own = "table ip kube-proxy {\n\tchain nat-prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy \
                   accept;\n\t\tct state new jump services\n\t}\n}\n";
        let cni = "table inet cni {\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy \
                   accept;\n\t\tip saddr 10.0.0.0/8 masquerade\n\t}\n}\n";
        let empty = "table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy \
                     accept;\n\t}\n}\n";
        let filter = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy \
                      accept;\n\t\tct state established accept\n\t}\n}\n";
        for (ruleset, held) in [
            (own.to_string(), false),
            (format!("{own}{cni}"), true),
            (format!("{cni}{own}"), true),
            (format!("{own}{empty}"), false),
            (format!("{own}{filter}"), false),
            (cni.replace("inet", "ip6"), false),
            (cni.replace("inet", "ip"), true),
        ] {
            assert_eq!(holds(&ruleset, "ip"), held, "{ruleset}");
        }
        let script = script(&["ip".into(), "ip6".into()], &["ip".into()]);
        assert!(script.ends_with("}\ndelete table ip kube-proxy\ndelete table ip6 kube-proxy\n"), "{script}");
        assert_eq!(script.matches("table ip flowpin-holds-nat {").count(), 1);
        assert!(holds(&script, "ip"), "once is enough");
    }
}

//! Looks at the host: sysctls, and the rules that the tools of netfilter list. Tools that aren't there, or don't
//! answer, are no error: then nothing is known of their rules.

use std::{collections::BTreeSet, path::Path};

use super::{iptables, nft, rule::Rule, tool};

/// Tables of iptables. `nft` lists those that iptables-nft made once more.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Interfaces with a strict reverse path filter.
    pub strict: BTreeSet<String>,
    /// Rules of interest.
    pub rules: Vec<Rule>,
}

impl Found {
    /// Looks. Takes as long as the tools do, with many rules a good part of a second.
    pub async fn look() -> Self {
        let strict = strict(Path::new("/proc/sys/net/ipv4/conf"));
        let list: &[&str] = &["-s", "-t", "list", "ruleset"];
        let (four, six, nft) =
            tokio::join!(run("iptables-save", &[]), run("ip6tables-save", &[]), run("nft", list));
        Self { strict, rules: combine(&four, &six, &nft) }
    }
}

fn combine(four: &str, six: &str, nft: &str) -> Vec<Rule> {
    let mut rules = iptables::rules(four, false);
    rules.extend(iptables::rules(six, true));
    let twice = |rule: &Rule| {
        let known = |family: &str, text: &str| {
            let table = rule.text.strip_prefix(&format!("nft {family} ")).and_then(|t| t.split(' ').next());
            table.is_some_and(|t| TABLES.contains(&t) && text.contains(&format!("*{t}\n")))
        };
        known("ip", four) || known("ip6", six)
    };
    rules.extend(nft::rules(nft).into_iter().filter(|rule| !twice(rule)));
    rules
}

/// The greater of an interface's setting and that of all counts (Documentation/networking/ip-sysctl.rst).
fn strict(conf: &Path) -> BTreeSet<String> {
    let read = |name: &str| -> u8 {
        let text = std::fs::read_to_string(conf.join(name).join("rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let all = read("all");
    let Ok(entries) = std::fs::read_dir(conf) else { return BTreeSet::new() };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n != "all" && n != "default" && read(n).max(all) == 1).collect()
}

/// What a tool lists.
async fn run(tool: &str, args: &[&str]) -> String {
    tool::run(tool, args, "").await.unwrap_or_else(|why| {
        tracing::debug!(why, "its rules aren't known");
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use super::{super::rule::Kind, *};

    #[test]
    fn the_greater_setting_counts() {
        let dir = tempfile::TempDir::new().unwrap();
        let write = |name: &str, value: &str| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("rp_filter"), format!("{value}\n")).unwrap();
        };
        for (name, value) in [("all", "0"), ("default", "1"), ("eth0", "1"), ("eth1", "2"), ("eth2", "0")] {
            write(name, value);
        }
        assert_eq!(strict(dir.path()), ["eth0".to_string()].into());
        write("all", "1");
        assert_eq!(strict(dir.path()), ["eth0".to_string(), "eth2".to_string()].into());
        write("all", "2");
        assert_eq!(strict(dir.path()), [].into());
        assert_eq!(strict(&dir.path().join("nothing")), [].into());
    }

    #[test]
    fn what_both_tools_list_is_taken_once() {
        let four = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        let nft = |family: &str, table: &str| {
            format!(
                "table {family} {table} {{\n chain FORWARD {{\n type filter hook forward priority 0; policy drop;\n }}\n}}\n"
            )
        };
        let both =
            combine(four, "", &[nft("ip", "filter"), nft("ip6", "filter"), nft("inet", "filter")].concat());
        let texts: Vec<&str> = both.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "iptables filter FORWARD: policy DROP",
                "nft ip6 filter FORWARD: policy drop",
                "nft inet filter FORWARD: policy drop"
            ]
        );
        assert!(both.iter().all(|r| r.kind == Kind::DropsRest));
    }
}

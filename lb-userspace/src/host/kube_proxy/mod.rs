//! What kube-proxy left on this node: rules of iptables, tables of nftables, what IPVS mode has besides. It doesn't
//! remove them when it ends; they answer for Services that are gone.
//!
//! ```text
//! iptables-save, nft, ipset ─▶ Found ─┬─▶ leftovers ─▶ cleanup kube-proxy | doctor
//!                                     └─▶ remove: iptables-restore --noflush, nft -f, ipset
//! ```

use serde::Serialize;

mod iptables;
mod ipvs;
mod names;
mod nft;
pub mod running;

use self::{iptables::Treatment, ipvs::Ipvs};
use super::tool;

/// Something that kube-proxy left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// What lists it: `iptables-nft`, `ip6tables-legacy`, `nft`, `ipset`, `ip`.
    pub tool: String,
    /// Table that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its name; of a jump, from which chain to which.
    pub name: String,
    /// It isn't removed, or not whole, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A rule in a chain of the kernel's.
    Jump,
    /// A chain of iptables.
    Chain,
    /// A table of nftables.
    Table,
    /// A network device.
    Interface,
    /// An IP set.
    Set,
}

/// The tables of one of iptables' kinds, for one IP version.
#[derive(Debug, Default)]
struct Tables {
    /// `iptables-nft`: its `-save` and `-restore` are called.
    tool: &'static str,
    tables: Vec<iptables::Table>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    iptables: Vec<Tables>,
    /// Families in which nftables has its table.
    families: Vec<String>,
    /// Those among them in which nothing else keeps NAT at work.
    hold: Vec<String>,
    ipvs: Ipvs,
    /// What couldn't be looked at, and why.
    pub unknown: Vec<String>,
}

/// iptables' tools: by kind, and as they are called where there is one kind.
const KINDS: [([&str; 2], &str); 2] =
    [(["iptables-nft", "iptables-legacy"], "iptables"), (["ip6tables-nft", "ip6tables-legacy"], "ip6tables")];

impl Found {
    /// Looks. Takes as long as the tools do, with many rules some seconds.
    pub async fn look() -> Self {
        let mut found = Self::default();
        for (kinds, plain) in KINDS {
            let installed = |tool: &&str| tool::is_installed(&format!("{tool}-save"));
            let mut tools: Vec<&'static str> = kinds.into_iter().filter(installed).collect();
            if tools.is_empty() && installed(&plain) {
                tools.push(plain);
            }
            if tools.is_empty() {
                found.unknown.push(format!("{plain}-save isn't installed: its rules aren't known"));
            } else if legacy_is_loaded(plain) && !tools.iter().any(|t| *t == plain || t.ends_with("legacy")) {
                found.unknown.push(format!(
                    "{plain}-legacy-save isn't installed, and the kernel has rules that it would list"
                ));
            }
            for tool in tools {
                match tool::run(&format!("{tool}-save"), &[], "").await {
                    Ok(text) => {
                        let tables = iptables::tables(&text);
                        found.iptables.push(Tables { tool, tables });
                    }
                    Err(why) => found.unknown.push(why),
                }
            }
        }
        found.iptables.retain(|tables| !tables.tables.is_empty());
        if let Err(why) = found.look_at_nft().await {
            found.unknown.push(why);
        }
        match Ipvs::look().await {
            Ok(ipvs) => found.ipvs = ipvs,
            Err(why) => found.unknown.push(why),
        }
        found
    }

    async fn look_at_nft(&mut self) -> Result<(), String> {
        self.families = nft::families(&tool::run("nft", &["-j", "list", "tables"], "").await?)?;
        if !self.families.is_empty() {
            let ruleset = tool::run("nft", &["-s", "-t", "list", "ruleset"], "").await?;
            let free = |family: &&String| !nft::holds(&ruleset, family);
            self.hold = self.families.iter().filter(free).cloned().collect();
        }
        Ok(())
    }

    /// All of it, in the order in which it would be removed.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let mut all = Vec::new();
        for Tables { tool, tables } in &self.iptables {
            for table in tables {
                let of = |kind, name: String, kept| Leftover {
                    tool: (*tool).into(),
                    table: Some(table.name.clone()),
                    kind,
                    name,
                    kept,
                };
                for (chain, rule) in &table.jumps {
                    all.push(of(Kind::Jump, format!("{chain} {rule}"), None));
                }
                for (chain, treatment) in &table.chains {
                    let kept = match treatment {
                        Treatment::Removed => None,
                        Treatment::Emptied(by) => {
                            Some(format!("emptied, since another's rule jumps to it: {by}"))
                        }
                        Treatment::Kept(by) => Some(format!("as it is, since another's rule needs it: {by}")),
                    };
                    all.push(of(Kind::Chain, chain.clone(), kept));
                }
            }
        }
        let nft = |family: &String| Leftover {
            tool: "nft".into(),
            table: None,
            kind: Kind::Table,
            name: format!("{family} {}", names::NFT_TABLE),
            kept: None,
        };
        all.extend(self.families.iter().map(nft));
        all.extend(self.ipvs.leftovers());
        all
    }

    /// What is to be said besides.
    pub fn notes(&self) -> Vec<String> {
        self.ipvs.note().into_iter().collect()
    }

    /// The mode of the kube-proxy that left this: `iptables`, `nftables`, `ipvs`.
    pub fn modes(&self) -> Vec<&'static str> {
        let iptables = self.iptables.iter().any(|t| t.tables.iter().any(|t| !t.jumps.is_empty()));
        let modes = [
            (!self.families.is_empty(), "nftables"),
            (!self.ipvs.is_empty(), "ipvs"),
            (iptables && self.ipvs.is_empty(), "iptables"),
        ];
        modes.into_iter().filter(|(is, _)| *is).map(|(_, mode)| mode).collect()
    }

    /// Removes it: what belongs to one tool and one table at once, or not at all. Goes on after a failure.
    ///
    /// # Errors
    /// What couldn't be removed, and why.
    pub async fn remove(&self) -> Result<(), Vec<String>> {
        let mut failed = Vec::new();
        for Tables { tool, tables } in &self.iptables {
            let script = iptables::script(tables);
            // Whoever else changes tables of the legacy kind holds a lock meanwhile.
            let args: &[&str] =
                if tool.ends_with("-nft") { &["--noflush"] } else { &["--noflush", "-w", "10"] };
            failed.extend(tool::run(&format!("{tool}-restore"), args, &script).await.err());
        }
        if !self.families.is_empty() {
            let script = nft::script(&self.families, &self.hold);
            failed.extend(tool::run("nft", &["-f", "-"], &script).await.err());
        }
        // Rules of iptables refer to sets.
        failed.extend(self.ipvs.remove().await);
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

/// Has the kernel tables of the legacy kind in this network namespace?
fn legacy_is_loaded(plain: &str) -> bool {
    let names = if plain == "iptables" { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    std::fs::read_to_string(names).is_ok_and(|text| !text.trim().is_empty())
}

//! `flowpin cleanup`

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    Failure,
    output::{Printer, Table, count},
};
use crate::host::kube_proxy::{Found, Kind, Leftover, running};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    KubeProxy(KubeProxy),
}

/// List what kube-proxy left on this node; with --yes, remove it
///
/// kube-proxy doesn't take its rules away when it ends. They translate nothing that Flowpin serves, but answer for
/// Services that are gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo flowpin cleanup kube-proxy                     list only
  sudo flowpin cleanup kube-proxy --yes
  flowpin cleanup kube-proxy -o json | jq -r '.leftovers[] | select(.kept) | .name'

Rules of iptables and ip6tables (both the nft and the legacy kind), tables of nftables, and what IPVS mode has besides. \
What the kubelet, a network plugin or an operator made stays; a chain that their rules jump to stays, too, and is \
emptied. Connections that are open through kube-proxy stay open. Works without an agent. Exit code 1: kube-proxy runs, \
or something couldn't be removed.")]
pub struct KubeProxy {
    /// Remove what is listed
    #[arg(long)]
    yes: bool,
    /// Remove it although kube-proxy runs, or seems to
    #[arg(long, requires = "yes")]
    force: bool,
}

#[derive(Serialize)]
struct View {
    /// By what kube-proxy is seen to run.
    running: Option<String>,
    removed: bool,
    leftovers: Vec<Leftover>,
    /// What couldn't be looked at.
    unknown: Vec<String>,
    notes: Vec<String>,
}

impl Command {
    pub async fn run(self, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::KubeProxy(args) => args.run(printer).await,
        }
    }
}

impl KubeProxy {
    async fn run(self, printer: &Printer) -> Result<(), Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::Said("only root may see and change rules of netfilter; use sudo".into()));
        }
        let running = running::seen(Path::new("/proc"));
        if let (Some(by), true, false) = (&running, self.yes, self.force) {
            return Err(Failure::Said(format!(
                "kube-proxy runs ({by}) and would make its rules anew; nothing was removed. Stop it first, or use \
                 --force if that is something else"
            )));
        }
        let found = Found::look().await;
        let leftovers = found.leftovers();
        let done = if self.yes { found.remove().await } else { Ok(()) };
        let view = View {
            running,
            removed: self.yes && done.is_ok(),
            leftovers,
            unknown: found.unknown.clone(),
            notes: found.notes(),
        };
        printer.print(&view, text)?;
        if let Err(failed) = done {
            return Err(Failure::Said(format!("not all could be removed: {}", failed.join("; "))));
        }
        if self.yes && !view.unknown.is_empty() {
            return Err(Failure::Said(format!("not all could be looked at: {}", view.unknown.join("; "))));
        }
        if !self.yes && !view.leftovers.is_empty() {
            printer.note("nothing was removed; --yes removes what is listed");
        }
        Ok(())
    }
}

fn text(view: &View) -> String {
    let mut text = String::new();
    if view.leftovers.is_empty() {
        text.push_str("nothing of kube-proxy's is left\n");
    } else {
        let heading = if view.removed { "REMOVED" } else { "FOUND" };
        text.push_str(&table(heading, &view.leftovers).to_string());
    }
    if let Some(by) = &view.running {
        text.push_str(&format!("kube-proxy runs: {by}\n"));
    }
    for unknown in &view.unknown {
        text.push_str(&format!("Not known: {unknown}\n"));
    }
    for note in &view.notes {
        text.push_str(&format!("Note: {note}\n"));
    }
    text
}

/// A row for each thing; one for all chains whose names differ by a hash alone.
fn table(heading: &str, leftovers: &[Leftover]) -> Table {
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut alike: BTreeMap<(&str, Option<&str>, &str), (usize, u64)> = BTreeMap::new();
    for l in leftovers {
        let kind = match l.kind {
            Kind::Jump => "rule",
            Kind::Chain => "chain",
            Kind::Table => "table",
            Kind::Interface => "interface",
            Kind::Set => "set",
        };
        let place = l.table.as_deref();
        let name = l.name.clone();
        if let (Kind::Chain, None, Some((prefix, hash))) = (l.kind, &l.kept, l.name.rsplit_once('-'))
            && hash.len() == 16
        {
            let (row, n) = alike.entry((&l.tool, place, prefix)).or_insert((rows.len(), 0));
            *n += 1;
            if *n > 1 {
                rows[*row][3] = format!("{prefix}-* ({})", count(*n));
                continue;
            }
        }
        let kept = l.kept.clone().unwrap_or_default();
        rows.push([l.tool.clone(), place.unwrap_or("-").into(), kind.into(), name, kept]);
    }
    let mut table = Table::new(&["BY", "TABLE", "WHAT", heading, "KEPT"]);
    rows.into_iter().for_each(|row| table.row(row));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(tool: &str, name: &str, kept: Option<&str>) -> Leftover {
        Leftover {
            tool: tool.into(),
            table: Some("nat".into()),
            kind: Kind::Chain,
            name: name.into(),
            kept: kept.map(String::from),
        }
    }

    #[test]
    fn chains_of_a_kind_are_one_row() {
        let leftovers = [
            chain("iptables-nft", "KUBE-SEP-AAAAAAAAAAAAAAAA", None),
            chain("iptables-nft", "KUBE-SEP-BBBBBBBBBBBBBBBB", None),
            chain("iptables-nft", "KUBE-SEP-CCCCCCCCCCCCCCCC", Some("emptied")),
            chain("iptables-nft", "KUBE-SVC-AAAAAAAAAAAAAAAA", None),
            chain("ip6tables-nft", "KUBE-SEP-AAAAAAAAAAAAAAAA", None),
            chain("iptables-nft", "KUBE-SERVICES", None),
        ];
        let text = table("FOUND", &leftovers).to_string();
        let names: Vec<&str> =
            text.lines().skip(1).map(|l| l.split("chain").nth(1).unwrap().trim()).collect();
        assert_eq!(
            names,
            [
                "KUBE-SEP-* (2)",
                "KUBE-SEP-CCCCCCCCCCCCCCCC   emptied",
                "KUBE-SVC-AAAAAAAAAAAAAAAA",
                "KUBE-SEP-AAAAAAAAAAAAAAAA",
                "KUBE-SERVICES"
            ]
        );
    }
}

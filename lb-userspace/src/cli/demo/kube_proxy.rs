//! The other node: rules as kube-proxy writes them for a service.

use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::{
    netns::{succeeded, within},
    world::{KUBE_VIP, PORT, kube_address},
};

/// The service's chain.
const CHAIN: &str = "KUBE-SVC-DEMO";

/// Makes the chain, with the first `endpoints` backends.
///
/// # Errors
/// No iptables here, or what it said.
pub fn begin(tag: &str, endpoints: usize) -> anyhow::Result<()> {
    rule(tag, &format!("-N {CHAIN}"))?;
    rule(tag, &format!("-A PREROUTING -d {KUBE_VIP} -p tcp --dport {PORT} -j {CHAIN}"))?;
    fill(tag, endpoints)
}

/// Writes the chain anew: of four endpoints, the first has a chance of 1/4, the second of 1/3 of what is left,
/// and so on.
///
/// # Errors
/// What iptables said.
pub fn fill(tag: &str, endpoints: usize) -> anyhow::Result<()> {
    rule(tag, &format!("-F {CHAIN}"))?;
    for i in 0..endpoints {
        let left = endpoints - i;
        let chance = match left {
            1 => String::new(),
            left => format!("-m statistic --mode random --probability {:.11}", 1.0 / left as f64),
        };
        let to = kube_address(i);
        rule(tag, &format!("-A {CHAIN} -p tcp {chance} -j DNAT --to-destination {to}:{PORT}"))?;
    }
    Ok(())
}

fn rule(tag: &str, args: &str) -> anyhow::Result<()> {
    let mut command = Command::new("iptables");
    command.args(["-w", "-t", "nat"]).args(args.split_whitespace()).stdin(Stdio::null());
    let out = match within(tag, "kube", || Ok(command.output()))? {
        Err(e) if e.kind() == ErrorKind::NotFound => bail!("iptables isn't here (apt install iptables)"),
        out => out.context("iptables")?,
    };
    succeeded(&format!("iptables -t nat {args}"), &out)
}

//! Services and servers.

use std::fmt::{self, Write};

use flowpin_import::ipvs::Forward;

use crate::{
    List, Refusal, Table, What,
    settings::{Said, say},
    table::{Counts, Frontend, Server, Service},
};

/// The first line: whose table it is.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// Version of the agent.
    pub version: &'a str,
    /// Connections that there is place for.
    pub size: u64,
}

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Flowpin version {} (size={})", self.version, self.size)
    }
}

/// A number in nine columns; long ones in thousands, unless `exact`.
fn number(n: u64, exact: bool) -> String {
    // One blank at least is before it.
    if exact {
        return format!(" {n:>8}");
    }
    match n {
        0..100_000_000 => format!("{n:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", n / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", n / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", n / 1_000_000_000),
        _ => format!("{:>8}T", n / 1_000_000_000_000),
    }
}

fn numbers(counts: &Counts, exact: bool) -> String {
    let Counts { connections, packets_in, packets_out, bytes_in, bytes_out } = *counts;
    [connections, packets_in, packets_out, bytes_in, bytes_out].map(|n| number(n, exact)).concat()
}

/// How packets get to servers.
const fn forwarding(forward: Forward) -> &'static str {
    match forward {
        Forward::Nat | Forward::Snat => "Masq",
        Forward::DsrL2 => "Route",
        Forward::DsrIpip => "Tunnel",
    }
}

/// The lines over the columns.
fn columns(what: What) -> String {
    const SERVER: &str = "  -> RemoteAddress:Port";
    let first = "Prot LocalAddress:Port";
    match what {
        What::Stats => {
            let [a, b, c, d, e] = ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"];
            format!("{first:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{SERVER}\n")
        }
        What::Rate => {
            let [a, b, c, d, e] = ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"];
            format!("{first:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{SERVER}\n")
        }
        What::Thresholds => {
            let [a, b, c, d] = ["Uthreshold", "Lthreshold", "ActiveConn", "InActConn"];
            format!("{first:<33} {a:<10} {b:<10} {c:<10} {d:<10}\n{SERVER}\n")
        }
        What::Persistent => {
            let [a, b, c, d] = ["Weight", "PersistConn", "ActiveConn", "InActConn"];
            format!("{first:<33} {a:<9} {b:<11} {c:<10} {d:<10}\n{SERVER}\n")
        }
        What::Tunnels => {
            format!(
                "{first} Scheduler Flags\n{SERVER:<33} Forward TunnelInfo    Weight ActiveConn InActConn\n"
            )
        }
        What::Services | What::Connections | What::Timeouts => {
            format!("{first} Scheduler Flags\n{SERVER:<33} Forward Weight ActiveConn InActConn\n")
        }
    }
}

/// A service's line.
fn service_line(service: &Service, frontend: &Frontend, list: &List) -> String {
    let name = format!("{:<4} {}", frontend.protocol.heading(), frontend.shown());
    if matches!(list.what, What::Stats | What::Rate) {
        let sum = frontend.servers(service).map(|server| server.counts).fold(Counts::default(), Counts::plus);
        return format!("{name:<33}{}\n", numbers(&sum, list.exact));
    }
    let Said { scheduler, flag, persistence, ipv6_prefix } =
        say(service.algorithm, service.affinity.as_ref());
    let mut line = format!("{name} {scheduler}");
    // A string takes everything.
    if let Some(flag) = flag {
        let _ = write!(line, " ({flag})");
    }
    if let Some(seconds) = persistence {
        let _ = write!(line, " persistent {seconds}");
        if let Some(bits) = ipv6_prefix {
            let _ = write!(line, " mask {bits}");
        }
    }
    line.push('\n');
    line
}

/// A server's line. Flowpin counts no inactive connections.
fn server_line(frontend: &Frontend, server: &Server, list: &List) -> String {
    let name = format!("  -> {:<28}", frontend.shown_server(server));
    let Server { limit, active, clients, counts, .. } = server;
    let weight = server.weight_in_force();
    let (forward, inactive) = (forwarding(frontend.forward), 0);
    match list.what {
        What::Stats | What::Rate => format!("{name}{}\n", numbers(counts, list.exact)),
        What::Thresholds => {
            format!("{name} {:<10} {:<10} {active:<10} {inactive:<10}\n", limit.unwrap_or(0), 0)
        }
        What::Persistent => format!("{name} {weight:<9} {clients:<11} {active:<10} {inactive:<10}\n"),
        What::Tunnels => {
            let tunnel = if frontend.forward == Forward::DsrIpip { "ipip" } else { "n/a" };
            format!("{name} {forward:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}\n")
        }
        What::Services | What::Connections | What::Timeouts => {
            format!("{name} {forward:<7} {weight:<6} {active:<10} {inactive:<10}\n")
        }
    }
}

/// Services with their servers. With one service only, the heading is left out, as ipvsadm does.
///
/// # Errors
/// There is no such service.
pub fn servers(heading: Heading<'_>, table: &Table, list: &List) -> Result<String, Refusal> {
    let (mut text, chosen) = match &list.only {
        None if list.sort => (heading.to_string(), table.sorted()),
        None => (heading.to_string(), table.listed()),
        Some(place) => {
            let covers = |(_, frontend): &(&Service, &Frontend)| frontend.overlaps(place);
            let chosen: Vec<_> = table.sorted().into_iter().filter(covers).collect();
            if chosen.is_empty() {
                return Err(Refusal::failed(format!(
                    "No such service: {place}; see what there is with \"flowpin ipvsadm -L\""
                )));
            }
            (String::new(), chosen)
        }
    };
    text.push_str(&columns(list.what));
    for (service, frontend) in chosen {
        text.push_str(&service_line(service, frontend, list));
        let mut servers: Vec<&Server> = frontend.servers(service).collect();
        if list.sort {
            servers.sort_by_key(|server| (server.address, frontend.port_of(server)));
        }
        for server in servers {
            text.push_str(&server_line(frontend, server, list));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_shortened_where_ipvsadm_shortens_them() {
        for (n, short, exact) in [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (123_456_789_012_345, "     123T", " 123456789012345"),
        ] {
            assert_eq!((number(n, false).as_str(), number(n, true).as_str()), (short, exact));
        }
    }
}

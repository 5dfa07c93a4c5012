//! The rules that kube-proxy would write for these services, in both of its modes.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::{
    server::{ECHO, PORTS},
    stage::{BACKENDS, VIP},
};

/// Conntrack looks at every packet, and nothing else happens.
pub const TRACK_ONLY: &str = "table ip track {\n chain forward {\n  type filter hook forward priority 0; policy accept;\n  \
                              ct state established,related accept\n }\n}\n";

/// VIP of another service than the measured one, which is number 0.
pub fn vip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(VIP) + number)
}

/// Ports as kube-proxy sees them: each is a service. The measured ones stand in the middle of all.
fn ports(services: u32) -> Vec<(Ipv4Addr, u16, &'static str)> {
    let others: Vec<_> = (1..services).map(|number| (vip(number), ECHO, "tcp")).collect();
    let (before, after) = others.split_at(others.len() / 2);
    let measured = PORTS.map(|(port, tcp)| (VIP, port, if tcp { "tcp" } else { "udp" }));
    [before, &measured, after].concat()
}

/// Input of `iptables-restore`.
pub fn iptables(services: u32) -> String {
    let ports = ports(services);
    let mut chains =
        String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n");
    let mut lines = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for (number, (vip, port, proto)) in ports.iter().enumerate() {
        let _ = writeln!(chains, ":KUBE-SVC-{number} - [0:0]");
        let _ = writeln!(
            lines,
            "-A KUBE-SERVICES -d {vip}/32 -p {proto} -m {proto} --dport {port} -j KUBE-SVC-{number}"
        );
        for i in 0..BACKENDS {
            let _ = writeln!(chains, ":KUBE-SEP-{number}-{i} - [0:0]");
            let left = BACKENDS - i;
            let chance = if left == 1 {
                String::new()
            } else {
                format!("-m statistic --mode random --probability {:.11} ", 1.0 / left as f64)
            };
            let _ = writeln!(lines, "-A KUBE-SVC-{number} {chance}-j KUBE-SEP-{number}-{i}");
            let _ = writeln!(lines, "-A KUBE-SEP-{number}-{i} -s 10.2.{i}.2/32 -j KUBE-MARK-MASQ");
            let _ = writeln!(
                lines,
                "-A KUBE-SEP-{number}-{i} -p {proto} -m {proto} -j DNAT --to-destination 10.2.{i}.2:{port}"
            );
        }
    }
    format!("{chains}{lines}COMMIT\n")
}

/// One backend less for one service, as kube-proxy writes it: the service's chain anew, in one `iptables-restore --noflush`.
pub fn iptables_change() -> String {
    "*nat\n:KUBE-SVC-0 - [0:0]\n-A KUBE-SVC-0 -m statistic --mode random --probability 0.5 -j KUBE-SEP-0-0\n\
     -A KUBE-SVC-0 -j KUBE-SEP-0-1\nCOMMIT\n"
        .into()
}

/// Input of `nft -f`.
pub fn nftables(services: u32) -> String {
    let ports = ports(services);
    let mut text = String::from(
        "table ip kube-proxy {\n chain mark-for-masquerade {\n  meta mark set mark or 0x4000\n }\n \
         chain masquerading {\n  meta mark & 0x4000 == 0 return\n  meta mark set mark xor 0x4000\n  masquerade fully-random\n }\n",
    );
    for (number, (_, port, proto)) in ports.iter().enumerate() {
        let mut choices = Vec::new();
        for i in 0..BACKENDS {
            let _ = writeln!(
                text,
                " chain endpoint-{number}-{i} {{\n  ip saddr 10.2.{i}.2 jump mark-for-masquerade\n  meta l4proto {proto} dnat to \
                 10.2.{i}.2:{port}\n }}"
            );
            choices.push(format!("{i} : goto endpoint-{number}-{i}"));
        }
        let _ = writeln!(
            text,
            " chain service-{number} {{\n  numgen random mod {BACKENDS} vmap {{ {} }}\n }}",
            choices.join(", ")
        );
    }
    let elements: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(number, (vip, port, proto))| format!("{vip} . {proto} . {port} : goto service-{number}"))
        .collect();
    let _ = write!(
        text,
        " map service-ips {{\n  type ipv4_addr . inet_proto . inet_service : verdict\n  elements = {{ {} }}\n }}\n \
         chain services {{\n  ip daddr . meta l4proto . th dport vmap @service-ips\n }}\n \
         chain nat-prerouting {{\n  type nat hook prerouting priority -100\n  jump services\n }}\n \
         chain nat-output {{\n  type nat hook output priority -100\n  jump services\n }}\n \
         chain nat-postrouting {{\n  type nat hook postrouting priority 100\n  jump masquerading\n }}\n}}\n",
        elements.join(",\n  ")
    );
    text
}

/// One backend less for one service: its chain anew, in one transaction.
pub fn nftables_change() -> String {
    "flush chain ip kube-proxy service-0\n\
     add rule ip kube-proxy service-0 numgen random mod 2 vmap { 0 : goto endpoint-0-0, 1 : goto endpoint-0-1 }\n"
        .into()
}

//! What kube-proxy names its things, in all its modes (pkg/proxy/{iptables,ipvs,nftables} of Kubernetes 1.20 to 1.36).
//! What the kubelet makes isn't among it (KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT), nor
//! are chains of network plugins.

/// Chains of all tables, nat, and filter.
const ANYWHERE: [&str; 1] = ["KUBE-PROXY-CANARY"];
const NAT: [&str; 6] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
];
const FILTER: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// A hash follows.
const HASHED: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];

/// Comments of rules by which chains of the kernel's jump to these.
const JUMPS: [&str; 9] = [
    "kubernetes service portals",
    "kubernetes externally-visible service portals",
    "kubernetes health check service ports",
    "kubernetes forwarding rules",
    "kubernetes load balancer firewall",
    "kubernetes postrouting rules",
    "kubernetes health check rules",
    "kube-proxy firewall rules",
    "kubernetes ipvs access filter",
];

/// Chains by which packets get another source. Network plugins may use them, too (portmap's `externalSetMarkChain`).
pub const MASQUERADE: [&str; 2] = ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"];

/// Table of nftables, one for each family.
pub const NFT_TABLE: &str = "kube-proxy";

/// The device that has the services' addresses in IPVS mode.
pub const DEVICE: &str = "kube-ipvs0";

/// IP sets of IPVS mode, after `KUBE-` or `KUBE-6-`.
const SETS: [&str; 17] = [
    "IPVS-IPS",
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
];
/// Longest name of a set (include/uapi/linux/netfilter/ipset/ip_set.h: IPSET_MAXNAMELEN, less the end).
const LONGEST: usize = 31;

/// Is it a chain of kube-proxy's, in this table?
pub fn is_chain(table: &str, name: &str) -> bool {
    // Sixteen characters of a hash in base 32.
    let hash = |rest: &str| rest.len() == 16 && rest.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
    let hashed = || HASHED.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(hash));
    ANYWHERE.contains(&name)
        || match table {
            "nat" => NAT.contains(&name) || hashed(),
            "filter" => FILTER.contains(&name),
            _ => false,
        }
}

/// Is it the comment of a rule of kube-proxy's in a chain of the kernel's?
pub fn is_jump(comment: &str) -> bool {
    JUMPS.contains(&comment)
}

/// Is it an IP set of kube-proxy's?
pub fn is_set(name: &str) -> bool {
    let six = |set: &str| -> bool {
        let whole = format!("KUBE-6-{set}");
        name == whole.get(..LONGEST).unwrap_or(&whole)
    };
    SETS.iter().any(|set| name.strip_prefix("KUBE-") == Some(set) || six(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_its_own_and_what_is_not() {
        for (table, name, is) in [
            ("nat", "KUBE-SERVICES", true),
            ("filter", "KUBE-SERVICES", true),
            ("mangle", "KUBE-SERVICES", false),
            ("mangle", "KUBE-PROXY-CANARY", true),
            ("mangle", "KUBE-KUBELET-CANARY", false),
            ("mangle", "KUBE-IPTABLES-HINT", false),
            ("filter", "KUBE-FIREWALL", false),
            ("nat", "KUBE-MARK-DROP", false),
            ("nat", "KUBE-MARK-MASQ", true),
            ("filter", "KUBE-FORWARD", true),
            ("nat", "KUBE-SEP-7PGBDXTK2JA5QG4L", true),
            ("nat", "KUBE-SVC-ERIFXISQEP7F7OF4", true),
            ("filter", "KUBE-SVC-ERIFXISQEP7F7OF4", false),
            ("nat", "KUBE-SVC-OF-MINE", false),
            ("nat", "KUBE-SVC-erifxisqep7f7of4", false),
            ("filter", "KUBE-ROUTER-FORWARD", false),
            ("filter", "KUBE-NWPLCY-DEFAULT", false),
            ("nat", "CNI-HOSTPORT-DNAT", false),
        ] {
            assert_eq!(is_chain(table, name), is, "{table} {name}");
        }
        for (name, is) in [
            ("KUBE-CLUSTER-IP", true),
            ("KUBE-6-CLUSTER-IP", true),
            // 31 characters of KUBE-6-LOAD-BALANCER-SOURCE-CIDR.
            ("KUBE-6-LOAD-BALANCER-SOURCE-CID", true),
            ("KUBE-LOAD-BALANCER-SOURCE-CIDR", true),
            ("KUBE-SRC-ABC", false),
            ("kube-router-pod-subnets", false),
        ] {
            assert_eq!(is_set(name), is, "{name}");
        }
    }
}

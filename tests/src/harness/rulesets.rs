//! Rule sets as hosts have them, for iptables and ip6tables alike.
//!
//! A line is repeated for each value of what it names in braces: `{client}` and `{backend}` are addresses,
//! `{uplink}` and `{pods}` the interfaces to them. `{icmp}` and `{reject}` are what the family calls them.

use super::topology::Family;

/// A host's rules.
#[derive(Clone, Copy, Debug)]
pub struct RuleSet {
    /// In the form of `iptables-save`, with names in braces.
    pub text: &'static str,
    /// Do connections that conntrack first sees in their middle survive it? Where not, this is so without a
    /// balancer as well.
    pub picks_up: bool,
}

/// What the names in braces stand for.
#[derive(Clone, Debug)]
pub struct Names {
    /// Addresses of clients.
    pub clients: Vec<String>,
    /// Addresses of backends.
    pub backends: Vec<String>,
    /// Interfaces to clients.
    pub uplinks: Vec<String>,
    /// Interfaces to backends.
    pub pods: Vec<String>,
}

impl RuleSet {
    /// The rules for a family.
    pub fn rules(&self, family: Family, names: &Names) -> String {
        let (icmp, reject) = match family {
            Family::V4 => ("icmp", "icmp-host-prohibited"),
            Family::V6 => ("ipv6-icmp", "icmp6-adm-prohibited"),
        };
        let mut lines: Vec<String> =
            self.text.lines().map(|l| l.replace("{icmp}", icmp).replace("{reject}", reject)).collect();
        for (name, values) in [
            ("{client}", &names.clients),
            ("{backend}", &names.backends),
            ("{uplink}", &names.uplinks),
            ("{pods}", &names.pods),
        ] {
            lines = lines.into_iter().flat_map(|line| repeat(line, name, values)).collect();
        }
        lines.join("\n") + "\n"
    }
}

fn repeat(line: String, name: &str, values: &[String]) -> Vec<String> {
    if line.contains(name) { values.iter().map(|v| line.replace(name, v)).collect() } else { vec![line] }
}

/// kube-proxy's rule against what conntrack can't place.
pub const INVALID_DROP: RuleSet = RuleSet {
    text: "*filter\n\
        :KUBE-FORWARD - [0:0]\n\
        -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        COMMIT",
    picks_up: true,
};

/// Nothing is forwarded but what backends are asked, and the answers.
pub const FORWARD_DROP: RuleSet = RuleSet {
    text: "*filter\n\
        :FORWARD DROP [0:0]\n\
        -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
        -A FORWARD -d {backend} -p tcp -m tcp --dport 80 -j ACCEPT\n\
        -A FORWARD -d {backend} -p udp -m udp --dport 53 -j ACCEPT\n\
        COMMIT",
    picks_up: true,
};

/// Policies on real addresses, in both directions, without a state. What conntrack can't place is looked for, so
/// that it is at work.
pub const POLICIES: RuleSet = RuleSet {
    text: "*filter\n\
        :FORWARD DROP [0:0]\n\
        :from-pod - [0:0]\n\
        :to-pod - [0:0]\n\
        -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        -A FORWARD -i {pods} -j from-pod\n\
        -A FORWARD -o {pods} -j to-pod\n\
        -A from-pod -d {client} -p tcp -m tcp --sport 80 -j ACCEPT\n\
        -A from-pod -d {client} -p udp -m udp --sport 53 -j ACCEPT\n\
        -A from-pod -j DROP\n\
        -A to-pod -s {client} -p tcp -m tcp --dport 80 -j ACCEPT\n\
        -A to-pod -s {client} -p udp -m udp --dport 53 -j ACCEPT\n\
        -A to-pod -j DROP\n\
        COMMIT",
    picks_up: true,
};

/// Policies with a state, as Calico writes them: an address each, and what is established passes.
pub const WORKLOADS: RuleSet = RuleSet {
    text: "*filter\n\
        :cali-FORWARD - [0:0]\n\
        :cali-tw - [0:0]\n\
        :cali-fw - [0:0]\n\
        -A FORWARD -j cali-FORWARD\n\
        -A cali-FORWARD -i {pods} -j cali-fw\n\
        -A cali-FORWARD -o {pods} -j cali-tw\n\
        -A cali-tw -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A cali-tw -m conntrack --ctstate INVALID -j DROP\n\
        -A cali-tw -s {client} -p tcp -m multiport --dports 80,443 -j ACCEPT\n\
        -A cali-tw -s {client} -p udp -m multiport --dports 53 -j ACCEPT\n\
        -A cali-tw -j DROP\n\
        -A cali-fw -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A cali-fw -m conntrack --ctstate INVALID -j DROP\n\
        -A cali-fw -j DROP\n\
        COMMIT",
    picks_up: true,
};

/// A zone as firewalld writes it with its iptables backend.
pub const FIREWALLD: RuleSet = RuleSet {
    text: "*filter\n\
        :FORWARD_IN_ZONES - [0:0]\n\
        :FWDI_public - [0:0]\n\
        -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT\n\
        -A INPUT -i lo -j ACCEPT\n\
        -A INPUT -p {icmp} -j ACCEPT\n\
        -A INPUT -m conntrack --ctstate INVALID -j DROP\n\
        -A INPUT -j REJECT --reject-with {reject}\n\
        -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT\n\
        -A FORWARD -i lo -j ACCEPT\n\
        -A FORWARD -j FORWARD_IN_ZONES\n\
        -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        -A FORWARD -j REJECT --reject-with {reject}\n\
        -A FORWARD_IN_ZONES -i {uplink} -g FWDI_public\n\
        -A FWDI_public -p {icmp} -j ACCEPT\n\
        -A FWDI_public -m conntrack --ctstate NEW -j ACCEPT\n\
        COMMIT",
    picks_up: true,
};

/// Routed connections as ufw allows them.
pub const UFW: RuleSet = RuleSet {
    text: "*filter\n\
        :INPUT DROP [0:0]\n\
        :FORWARD DROP [0:0]\n\
        :ufw-before-input - [0:0]\n\
        :ufw-before-forward - [0:0]\n\
        :ufw-user-forward - [0:0]\n\
        -A INPUT -j ufw-before-input\n\
        -A FORWARD -j ufw-before-forward\n\
        -A ufw-before-input -i lo -j ACCEPT\n\
        -A ufw-before-input -p {icmp} -j ACCEPT\n\
        -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n\
        -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A ufw-before-forward -p {icmp} -j ACCEPT\n\
        -A ufw-before-forward -j ufw-user-forward\n\
        -A ufw-user-forward -i {uplink} -d {backend} -p tcp -m tcp --dport 80 -j ACCEPT\n\
        -A ufw-user-forward -i {uplink} -d {backend} -p udp -m udp --dport 53 -j ACCEPT\n\
        COMMIT",
    picks_up: true,
};

/// Published ports as Docker writes them.
pub const DOCKER: RuleSet = RuleSet {
    text: "*nat\n\
        -A POSTROUTING -s {backend} -o {uplink} -j MASQUERADE\n\
        COMMIT\n\
        *filter\n\
        :FORWARD DROP [0:0]\n\
        :DOCKER - [0:0]\n\
        :DOCKER-USER - [0:0]\n\
        -A FORWARD -j DOCKER-USER\n\
        -A FORWARD -o {pods} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -o {pods} -j DOCKER\n\
        -A FORWARD -i {pods} -o {uplink} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A DOCKER -d {backend} -p tcp -m tcp --dport 80 -j ACCEPT\n\
        -A DOCKER -d {backend} -p udp -m udp --dport 53 -j ACCEPT\n\
        -A DOCKER-USER -j RETURN\n\
        COMMIT",
    picks_up: true,
};

/// Before routing, on a host that takes only what begins with a SYN.
pub const HARDENED: RuleSet = RuleSet {
    text: "*mangle\n\
        -A PREROUTING -m conntrack --ctstate INVALID -j DROP\n\
        -A PREROUTING -p tcp -m tcp ! --syn -m conntrack --ctstate NEW -j DROP\n\
        COMMIT",
    picks_up: false,
};

/// Clients get an address of the node's on their way to backends.
pub const MASQUERADE_TO_BACKENDS: RuleSet = RuleSet {
    text: "*nat\n\
        -A POSTROUTING -o {pods} -j MASQUERADE\n\
        COMMIT\n\
        *filter\n\
        -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        COMMIT",
    picks_up: false,
};

/// What pods open towards clients gets an address of the node's; their answers don't.
pub const MASQUERADE_TO_CLIENTS: RuleSet = RuleSet {
    text: "*nat\n\
        -A POSTROUTING -o {uplink} -j MASQUERADE\n\
        COMMIT\n\
        *filter\n\
        -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        COMMIT",
    picks_up: true,
};

/// Packets must come in where answers to them would leave.
pub const REVERSE_PATH: RuleSet = RuleSet {
    text: "*raw\n\
        -A PREROUTING -p {icmp} -j ACCEPT\n\
        -A PREROUTING -m rpfilter --invert -j DROP\n\
        COMMIT\n\
        *filter\n\
        -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        COMMIT",
    picks_up: true,
};

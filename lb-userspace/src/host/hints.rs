//! From what was found to what is said.

mod sockets;

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    look::Found,
    rule::{Kind, Rule},
};

/// Names and rules that are listed, at most.
const LISTED: usize = 3;

/// Something to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What it is about: `rp_filter`, `netfilter`, `route`, `sockets`.
    pub about: &'static str,
    /// What it keeps from working.
    pub text: String,
    /// What would help.
    pub remedy: String,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// To whom.
    pub to: Towards,
    /// By this interface.
    pub interface: String,
}

/// To whom packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Towards {
    /// Clients elsewhere, by the default route.
    Clients {
        /// IPv6 ones?
        v6: bool,
    },
    /// A backend.
    Backend {
        /// Its service.
        service: String,
        /// Its name.
        backend: String,
        /// Do its answers go to an address of the node's (source NAT)?
        snat: bool,
        /// Has it an IPv6 address?
        v6: bool,
    },
}

/// How we are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Interfaces that the configuration matches.
    pub matched: BTreeSet<String>,
    /// Those among them where answers are translated as they come in, before the stack sees them.
    pub arrival: BTreeSet<String>,
    /// Those among the rest where XDP is attached, which leaves to the stack what it has translated.
    pub by_xdp: BTreeSet<String>,
    /// Where services are reached; `None`: not known.
    pub vips: Option<BTreeSet<IpAddr>>,
    /// Where clients and backends are.
    pub ways: Vec<Way>,
    /// Services at loopback addresses, if nobody is led from there: socket hooks are off.
    pub not_led: BTreeSet<String>,
    /// Why sockets of the node's processes can't be ended, if they are led and can't.
    pub not_ended: Option<String>,
}

impl Setup {
    /// One in which everything could matter, for when there is no configuration to go by.
    pub const fn unknown(interfaces: BTreeSet<String>) -> Self {
        Self {
            matched: BTreeSet::new(),
            arrival: interfaces,
            by_xdp: BTreeSet::new(),
            vips: None,
            ways: Vec::new(),
            not_led: BTreeSet::new(),
            not_ended: None,
        }
    }

    /// Are all answers translated as they come in?
    fn all_on_arrival(&self) -> bool {
        self.matched == self.arrival
    }

    /// Ways to backends that see an address of the node's.
    fn source_nat(&self, v6: bool) -> impl Iterator<Item = &Way> {
        let is = move |way: &&Way| matches!(way.to, Towards::Backend { snat: true, v6: of, .. } if of == v6);
        self.ways.iter().filter(is)
    }

    /// Interfaces by which XDP gets the answers of such backends: they are translated as they come in.
    fn answers_by_xdp(&self, v6: bool) -> BTreeSet<String> {
        let names = self.source_nat(v6).map(|way| &way.interface);
        names.filter(|name| self.by_xdp.contains(*name)).cloned().collect()
    }

    fn serves(&self, v6: bool) -> bool {
        self.vips.as_ref().is_none_or(|vips| vips.iter().any(|vip| vip.is_ipv6() == v6))
    }
}

/// What is to be said, in an order that stays.
pub fn hints(setup: &Setup, found: &Found) -> Vec<Hint> {
    let mut hints = Vec::new();
    hints.extend(strict(setup, found));
    hints.extend(drops(setup, found));
    hints.extend(replaces(setup, found));
    hints.extend(past_us(setup));
    hints.extend(sockets::not_led(setup));
    hints.extend(sockets::not_ended(setup));
    hints
}

/// Answers that were translated have the VIP as their source, whose route doesn't lead where they came from. What clients send has an address of the
/// node's after source NAT, which XDP leaves to the stack.
fn strict(setup: &Setup, found: &Found) -> Option<Hint> {
    let mut translating = BTreeSet::new();
    if setup.source_nat(false).next().is_some() {
        translating.extend(setup.by_xdp.iter().cloned());
    }
    if setup.serves(false) {
        translating.extend(setup.arrival.iter().cloned());
    }
    let names: Vec<&str> = translating.intersection(&found.strict).map(String::as_str).collect();
    if names.is_empty() {
        return None;
    }
    // As sysctl has them: a dot in a name is a slash.
    let settings = names.iter().map(|name| format!("net.ipv4.conf.{}.rp_filter=2", name.replace('.', "/")));
    Some(Hint {
        about: "rp_filter",
        text: format!(
            "rp_filter is 1 (strict) on {}: packets that are translated as they come in there are dropped",
            list(names.iter().copied())
        ),
        remedy: format!("sysctl -w {} (or 0)", settings.take(LISTED).collect::<Vec<_>>().join(" ")),
    })
}

/// Answers that were translated belong to no connection that conntrack knows.
fn drops(setup: &Setup, found: &Found) -> Option<Hint> {
    let translating = [false, true].map(|v6| {
        let mut names = setup.answers_by_xdp(v6);
        if setup.serves(v6) {
            names.extend(setup.arrival.iter().cloned());
        }
        names
    });
    let [four, six] = &translating;
    let of = |kind: &Kind| -> Vec<&Rule> {
        let concerned = |names: &BTreeSet<String>, r: &Rule| !names.is_empty() && r.concerns(names);
        let of_family = |r: &&Rule| (r.v4 && concerned(four, r)) || (r.v6 && concerned(six, r));
        found.rules.iter().filter(|r| r.kind == *kind).filter(of_family).collect()
    };
    let names: BTreeSet<&str> = four.union(six).map(String::as_str).collect();
    let (invalid, rest) = (of(&Kind::DropsInvalid), of(&Kind::DropsRest));
    let (rules, how) = match (invalid.is_empty(), rest.is_empty()) {
        (false, _) => (invalid, "are dropped"),
        (true, false) => (rest, "are dropped unless a rule accepts them whatever their state"),
        (true, true) => return None,
    };
    Some(Hint {
        about: "netfilter",
        text: format!(
            "answers that are translated as they come in (by {}) belong to no connection of conntrack's; \
             those that the stack forwards {how}: {}",
            list(names.iter().copied()),
            list(rules.iter().map(|r| r.text.as_str()))
        ),
        remedy: if setup.arrival.is_empty() {
            "attach = \"tc\" there, or accept packets from the VIPs before that rule".into()
        } else {
            "leave out fast and reply = \"ingress\" there, or accept packets from the VIPs before that rule"
                .into()
        },
    })
}

/// To conntrack an answer that was translated may be the first packet of a connection.
fn replaces(setup: &Setup, found: &Found) -> Option<Hint> {
    let applies = |rule: &&Rule| match (&setup.vips, &rule.kind) {
        (Some(vips), _) => vips.iter().any(|vip| rule.replaces(*vip)),
        (None, Kind::ReplacesSource { from, .. }) => from.is_none(),
        (None, _) => false,
    };
    let rules: Vec<&str> = found.rules.iter().filter(applies).map(|r| r.text.as_str()).collect();
    if rules.is_empty() || setup.arrival.is_empty() {
        return None;
    }
    Some(Hint {
        about: "netfilter",
        text: format!(
            "answers by UDP that are translated as they come in (by {}) are new connections to conntrack, and get \
             another source: {}",
            list(setup.arrival.iter().map(String::as_str)),
            list(rules.iter().copied())
        ),
        remedy: "leave out fast and reply = \"ingress\" there, or have packets from the VIPs RETURN before that rule"
            .into(),
    })
}

/// Answers that no program of ours meets.
fn past_us(setup: &Setup) -> Vec<Hint> {
    // Without any interface nothing is balanced, which is said elsewhere.
    if setup.matched.is_empty() {
        return Vec::new();
    }
    let all_on_arrival = setup.all_on_arrival();
    let mut hints: Vec<Hint> = Vec::new();
    let missed = |way: &&Way| !setup.matched.contains(&way.interface);
    let add = |interface: &str| format!("add an [[interface]] with match = \"{interface}\"");
    for way in setup.ways.iter().filter(missed) {
        if let Towards::Clients { v6 } = way.to
            && !all_on_arrival
        {
            let family = if v6 { "IPv6" } else { "IPv4" };
            hints.push(Hint {
                about: "route",
                text: format!(
                    "the {family} default route leaves by {}, which no [[interface]] matches: answers to clients there \
                     keep the backend's address",
                    way.interface
                ),
                remedy: add(&way.interface),
            });
        }
    }
    // Others' answers are translated where they leave, whatever else is done where they come in.
    let lost = |way: &&Way| matches!(way.to, Towards::Backend { snat: true, .. });
    let lost: Vec<&Way> = setup.ways.iter().filter(missed).filter(lost).collect();
    let interfaces: BTreeSet<&str> = lost.iter().map(|way| way.interface.as_str()).collect();
    for interface in interfaces {
        let backends = lost.iter().filter(|way| way.interface == interface).filter_map(|way| match &way.to {
            Towards::Backend { service, backend, .. } => Some(format!("{backend} of \"{service}\"")),
            Towards::Clients { .. } => None,
        });
        let backends: Vec<String> = backends.collect();
        hints.push(Hint {
            about: "route",
            text: format!(
                "backends are reached by {interface}, which no [[interface]] matches, and their answers have to be \
                 translated as they come in: {}",
                list(backends.iter().map(String::as_str))
            ),
            remedy: add(interface),
        });
    }
    hints
}

/// Some of them, and how many more there are.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    let shown = items.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn setup(matched: &[&str], arrival: &[&str]) -> Setup {
        let vips = Some(["10.96.0.10".parse().unwrap()].into());
        Setup { matched: set(matched), arrival: set(arrival), vips, ..Setup::default() }
    }

    fn rule(kind: Kind) -> Rule {
        Rule { text: format!("{kind:?}"), v4: true, v6: false, input: None, kind }
    }

    const ALL: Kind = Kind::ReplacesSource { from: None, not: false };

    #[test]
    fn strict_filters_matter_where_answers_are_translated_on_arrival() {
        let found = Found { strict: set(&["b0", "b1.7", "c0"]), rules: Vec::new() };
        let said = hints(&setup(&["c0", "b0", "b1.7"], &["b0", "b1.7"]), &found);
        assert_eq!(said.len(), 1);
        assert!(said[0].text.contains("on b0, b1.7: "), "{}", said[0].text);
        assert_eq!(
            said[0].remedy,
            "sysctl -w net.ipv4.conf.b0.rp_filter=2 net.ipv4.conf.b1/7.rp_filter=2 (or 0)"
        );
        assert_eq!(hints(&setup(&["c0", "b0"], &[]), &found), [], "translated at egress");
        let six = Setup { vips: Some(["fd96::1".parse().unwrap()].into()), ..setup(&["b0"], &["b0"]) };
        assert_eq!(hints(&six, &found), [], "rp_filter is about IPv4");
    }

    #[test]
    fn netfilter_matters_where_answers_are_translated_on_arrival() {
        let rules = vec![rule(Kind::DropsInvalid), rule(Kind::DropsRest), rule(ALL)];
        let found = Found { strict: BTreeSet::new(), rules };
        let said = hints(&setup(&["c0", "b0"], &["b0"]), &found);
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].text.ends_with("are dropped: DropsInvalid"), "{}", said[0].text);
        assert!(said[1].text.contains("ReplacesSource"), "{}", said[1].text);
        assert_eq!(hints(&setup(&["c0", "b0"], &[]), &found), []);
        let rest = Found { strict: BTreeSet::new(), rules: vec![rule(Kind::DropsRest)] };
        assert!(hints(&setup(&["b0"], &["b0"]), &rest)[0].text.contains("unless a rule accepts them"));
        let other = Rule { input: Some("x0".into()), ..rule(Kind::DropsInvalid) };
        let other = Found { strict: BTreeSet::new(), rules: vec![other] };
        assert_eq!(hints(&setup(&["b0"], &["b0"]), &other), [], "for another interface");
    }

    #[test]
    fn xdp_leaves_to_the_stack_what_it_has_translated_for_source_nat() {
        let way = |snat, v6| Way {
            to: Towards::Backend { service: "app".into(), backend: "x".into(), snat, v6 },
            interface: "b0".into(),
        };
        let said = |by_xdp: &[&str], way: Way, rules: Vec<Rule>| {
            let setup = Setup {
                by_xdp: set(by_xdp),
                ways: vec![way],
                vips: Some(BTreeSet::new()),
                ..setup(&["c0", "b0"], &[])
            };
            hints(&setup, &Found { strict: set(&["c0", "b0"]), rules })
        };
        let found = said(&["c0", "b0"], way(true, false), vec![rule(Kind::DropsInvalid)]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].text.contains("on b0, c0: ") && found[1].text.contains("by b0)"), "{found:#?}");
        assert!(found[1].remedy.contains("attach = \"tc\""), "{found:#?}");
        let found = said(&["c0"], way(true, false), vec![rule(Kind::DropsInvalid)]);
        assert_eq!(found.len(), 1, "TC sends answers on itself: {found:#?}");
        assert!(found[0].text.contains("on c0: "), "{found:#?}");
        for other in [way(false, false), way(true, true)] {
            let found = said(&["c0", "b0"], other, vec![rule(Kind::DropsInvalid)]);
            assert_eq!(found, [], "no source NAT, or another IP version");
        }
        let of_v6 = Rule { v4: false, v6: true, ..rule(Kind::DropsInvalid) };
        assert_eq!(said(&["c0", "b0"], way(true, true), vec![of_v6]).len(), 1);
    }

    #[test]
    fn a_source_is_replaced_only_if_it_is_a_vip() {
        let from = |net: &str| Kind::ReplacesSource { from: Some(net.parse().unwrap()), not: false };
        let found = |kind| Found { strict: BTreeSet::new(), rules: vec![rule(kind)] };
        let arrival = setup(&["b0"], &["b0"]);
        assert_eq!(hints(&arrival, &found(from("172.17.0.0/16"))), []);
        assert_eq!(hints(&arrival, &found(from("10.96.0.0/16"))).len(), 1);
        let unknown = Setup::unknown(set(&["b0"]));
        assert_eq!(hints(&unknown, &found(from("10.96.0.0/16"))), []);
        assert_eq!(hints(&unknown, &found(ALL)).len(), 1);
    }

    #[test]
    fn routes_past_us() {
        let clients = Way { to: Towards::Clients { v6: false }, interface: "eth0".into() };
        let backend = |n: u32, snat| Way {
            to: Towards::Backend { service: "app".into(), backend: format!("10.2.0.{n}"), snat, v6: false },
            interface: "b9".into(),
        };
        let said = |mut setup: Setup, ways: Vec<Way>| {
            setup.ways = ways;
            hints(&setup, &Found::default())
        };
        let found = said(setup(&["c0"], &[]), vec![clients.clone(), backend(1, false)]);
        assert_eq!(found.len(), 1, "answers are translated where they leave: {found:#?}");
        assert!(found[0].text.contains("IPv4 default route leaves by eth0"), "{}", found[0].text);
        assert_eq!(found[0].remedy, "add an [[interface]] with match = \"eth0\"");
        assert_eq!(said(setup(&["eth0"], &[]), vec![clients.clone()]), []);
        assert_eq!(said(setup(&[], &[]), vec![clients.clone()]), [], "nothing is balanced");
        let found = said(setup(&["c0"], &["c0"]), vec![backend(1, false), clients.clone()]);
        assert_eq!(found, [], "answers are translated where they leave as well");
        let found =
            said(setup(&["c0"], &["c0"]), (1..=5).map(|n| backend(n, true)).chain([clients]).collect());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0]
                .text
                .ends_with("10.2.0.1 of \"app\", 10.2.0.2 of \"app\", 10.2.0.3 of \"app\" and 2 more")
        );
        assert_eq!(said(setup(&["c0"], &[]), vec![backend(1, true)]).len(), 1, "source NAT");
        assert_eq!(said(setup(&["c0", "b9"], &["c0", "b9"]), vec![backend(1, true)]), []);
    }
}

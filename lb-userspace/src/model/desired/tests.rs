use proptest::prelude::*;

use super::*;
use crate::model::{
    ForwardKind, Forwarding, Frontend, Origin,
    service::{check_name, make_backend, parse_backend},
};

/// The same service with its frontend changed.
fn changed(mut service: ServiceSpec, change: impl FnOnce(&mut Frontend)) -> ServiceSpec {
    change(&mut service.frontends[0]);
    service
}

pub fn service(name: &str, vip: &str, ports: &[&str], backends: &[&str]) -> ServiceSpec {
    let frontend = Frontend {
        addresses: vec![vip.parse().unwrap()],
        ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        ..Frontend::default()
    };
    let mut spec = ServiceSpec::new(name, vec![frontend], Origin::File);
    for b in backends {
        spec.add(make_backend(name, b, None, None, false, Origin::File).unwrap()).unwrap();
    }
    spec
}

fn refusal(services: Vec<ServiceSpec>) -> String {
    Desired::new(services).expect_err("must be refused").to_string()
}

#[test]
fn a_good_one_is_taken() {
    let desired = Desired::new(vec![
        service("a", "10.96.0.10", &["80/tcp", "80/udp", "8001-8003/tcp"], &["10.0.1.1", "10.0.1.1:81"]),
        service("ns/b", "fd96::10", &["80/tcp"], &["[fd00::1]:80", "fd00::2"]),
        service("c", "10.96.0.10", &["8004/tcp"], &[]),
    ])
    .unwrap();
    assert_eq!(desired.services()["ns/b"].backends.keys().collect::<Vec<_>>(), ["[fd00::1]:80", "fd00::2"]);
}

#[test]
fn ports() {
    let parse = |s: &str| s.parse::<PortRange>().expect_err(s).to_string();
    assert!(parse("0/tcp").contains("port 0 is not a port"));
    assert!(parse("0-5/tcp").contains("port 0 is not a port"));
    assert!(parse("9-8/tcp").contains("write 8-9"));
    for bad in ["80", "80/sctp", "65536/tcp", "x/tcp", "1-/tcp", "-1/tcp", "/tcp", "80/TCP "] {
        assert!(parse(bad).contains(bad), "{bad}");
    }
}

#[test]
fn overlapping_services() {
    let text = refusal(vec![
        service("a", "10.96.0.10", &["8001-8003/tcp"], &[]),
        service("b", "10.96.0.10", &["8003/tcp"], &[]),
    ]);
    assert!(text.contains("\"a\" and \"b\" overlap at 10.96.0.10 port 8003/tcp"), "{text}");
    let text = refusal(vec![service("a", "10.96.0.10", &["1-9/tcp", "9/tcp"], &[])]);
    assert!(text.contains("ports 1-9/tcp and 9/tcp overlap at 10.96.0.10"), "{text}");
    let text = refusal(vec![
        service("wide", "10.96.0.10", &["1-9000/tcp"], &[]),
        service("x", "10.96.0.10", &["9001/tcp"], &[]),
        service("y", "10.96.0.10", &["50/tcp"], &[]),
    ]);
    assert!(text.contains("\"wide\" and \"y\" overlap"), "{text}");
}

#[test]
fn backends() {
    let text = refusal(vec![service("a", "10.96.0.10", &["80/tcp"], &["fd00::1"])]);
    assert!(text.contains("fd00::1 is not of the VIP's family (10.96.0.10); use an IPv4 backend"), "{text}");
    for (weight, named) in [(65_536, "weight 65536"), (-1, "weight -1")] {
        let text =
            make_backend("a", "10.0.0.1", Some(weight), None, false, Origin::File).unwrap_err().to_string();
        assert!(text.contains(named) && text.contains("0 to 65535"), "{text}");
    }
    assert!(make_backend("a", "10.0.0.1", Some(65_535), Some(1), false, Origin::File).is_ok());
    assert!(
        make_backend("a", "10.0.0.1", None, Some(0), false, Origin::File)
            .unwrap_err()
            .to_string()
            .contains("max_connections 0")
    );
    let mut twice = service("a", "10.96.0.10", &["80/tcp"], &["10.0.0.1:80"]);
    let again = make_backend("a", "10.0.0.1:80", Some(2), None, false, Origin::File).unwrap();
    assert!(twice.add(again).unwrap_err().to_string().contains("10.0.0.1:80 is declared twice"));
    let text = refusal(vec![service("a", "10.96.0.10", &["80/tcp"], &["10.96.0.10:80"])]);
    assert!(text.contains("is the VIP of service \"a\""), "{text}");
    assert!(
        parse_backend("a", "nonsense").unwrap_err().to_string().contains("\"nonsense\" is not an address")
    );
    assert!(parse_backend("a", "10.0.0.1:0").is_err());
}

#[test]
fn vips_and_names() {
    for vip in [
        "0.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "::ffff:1.2.3.4",
        "::ffff:127.0.0.1",
        "fe80::1",
    ] {
        assert!(refusal(vec![service("a", vip, &["80/tcp"], &[])]).contains("can't be a VIP"), "{vip}");
    }
    for vip in ["127.0.0.1", "127.1.2.3", "::1"] {
        let mut at = service("a", vip, &["80/tcp"], &[]);
        assert!(Desired::new(vec![at.clone()]).is_ok(), "{vip}");
        let all = if vip.contains(':') { "::/0" } else { "0.0.0.0/0" };
        at.frontends[0].sources = [all.parse().unwrap()].into();
        assert!(refusal(vec![at]).contains("only processes of the node get to"), "{vip}");
    }
    for name in
        ["", "a b", "/a", "..", "a/", "a//b", "a/../b", ":a", "a:", "a::b", "ä", "a%2Fb", &"x".repeat(254)]
    {
        assert!(check_name(name).is_err(), "{name}");
    }
    for name in ["a", "a/b/c", "ns/web:http", "a:b:c/d/e:f", "...", "1"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    assert!(check_name(&"x".repeat(253)).is_ok());
    assert!(refusal(vec![service("a", "10.0.0.1", &[], &[])]).contains("no ports"));
    let twice = vec![service("a", "10.0.0.1", &["1/tcp"], &[]), service("a", "10.0.0.2", &["1/tcp"], &[])];
    assert!(refusal(twice).contains("\"a\" is declared twice"));
}

#[test]
fn limits_are_named() {
    let many = |n: u32| {
        (0..n).map(|i| {
            let vip = format!("10.{}.{}.{}", 100 + i / 65_536, i / 256 % 256, i % 256);
            service(&format!("s{i}"), &vip, &["80/tcp"], &[])
        })
    };
    assert!(Desired::new(many(16_000).collect()).is_ok());
    assert!(refusal(many(16_001).collect()).contains("16001 services are too many; the limit is 16000"));
    let names: Vec<String> = (0..8193).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).skip(1).collect();
    let mut big =
        service("big", "10.96.0.1", &["80/tcp"], &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(Desired::new(vec![big.clone()]).is_ok());
    big.add(make_backend("big", "10.9.9.9", None, None, false, Origin::File).unwrap()).unwrap();
    assert!(refusal(vec![big]).contains("has 8193 backends; the limit is 8192"));
    let wide = |i: u32| service(&format!("w{i}"), &format!("10.96.0.{i}"), &["1-65535/tcp"], &[]);
    assert!(Desired::new((1..5).map(wide).collect()).is_ok());
    assert!(refusal((1..6).map(wide).collect()).contains("327675 ports in all"));
}

#[test]
fn at_all_addresses_of_the_node() {
    let all = |name: &str, vip: &str| service(name, vip, &["80/tcp"], &[]);
    let named = all("c", "192.0.2.1");
    assert!(Desired::new(vec![all("a", "0.0.0.0"), all("b", "::"), named.clone()]).is_ok());
    let text = refusal(vec![all("a", "0.0.0.0"), all("b", "0.0.0.0")]);
    assert!(text.contains("\"a\" and \"b\" overlap at 0.0.0.0 port 80/tcp"), "{text}");
    let except = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
    let text = refusal(vec![changed(named.clone(), |f| f.except = except.clone())]);
    assert!(text.contains("vip_except") && text.contains("192.0.2.1"), "{text}");
    let text = refusal(vec![changed(all("b", "::"), |f| f.except = except)]);
    assert!(text.contains("192.0.2.1 is not of the VIP's family (::); use IPv6"), "{text}");
    let text = refusal(vec![changed(named, |f| f.sources = ["fd00::/64".parse().unwrap()].into())]);
    assert!(text.contains("fd00::/64 is not of the VIP's family (192.0.2.1); use IPv4"), "{text}");
    let dsr = Forwarding { pod: ForwardKind::DsrL2, elsewhere: ForwardKind::Nat };
    let text = refusal(vec![changed(all("a", "0.0.0.0"), |f| f.forward = dsr)]);
    assert!(text.contains("use nat or snat"), "{text}");
}

#[test]
fn frontends() {
    let at = |addresses: &[&str], ports: &[&str]| Frontend {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        ..Frontend::default()
    };
    let with = |frontends: Vec<Frontend>, backends: &[&str]| {
        let mut spec = service("s", "10.96.0.1", &["80/tcp"], backends);
        spec.frontends.extend(frontends);
        spec
    };
    let several = [
        at(&["10.96.0.1", "fd96::1"], &["81:8080/tcp"]),
        at(&["0.0.0.0", "::"], &["30080:8080/tcp"]),
        at(&["192.0.2.1"], &["30080/tcp"]),
    ];
    let good = with(several.to_vec(), &["10.0.0.1", "fd00::1"]);
    assert!(Desired::new(vec![good.clone()]).is_ok());
    assert_eq!(good.warnings(), Vec::<String>::new());
    let half = with(several.to_vec(), &["10.0.0.1"]);
    assert!(Desired::new(vec![half.clone()]).is_ok());
    assert!(half.warnings()[0].contains("no backend is IPv6"), "{:?}", half.warnings());
    let text = refusal(vec![with(vec![], &["10.0.0.1", "fd00::1"])]);
    assert!(text.contains("fd00::1 is not of the VIP's family (10.96.0.1)"), "{text}");
    let text = refusal(vec![with(vec![at(&["10.96.0.2", "10.96.0.1"], &["79-80/tcp"])], &[])]);
    assert!(text.contains("79-80/tcp") && text.contains("overlap at 10.96.0.1"), "{text}");
    let text = refusal(vec![good.clone(), service("t", "fd96::1", &["80-90/tcp"], &[])]);
    assert!(text.contains("overlap at fd96::1 port 81:8080/tcp"), "{text}");
    let text = refusal(vec![good.clone(), service("t", "10.9.9.9", &["80/tcp"], &["192.0.2.1:30080"])]);
    assert!(text.contains("192.0.2.1:30080 is the VIP of service \"s\""), "{text}");
    // Beside the port of one service there may be a server of another.
    assert!(
        Desired::new(vec![good.clone(), service("t", "10.9.9.9", &["80/tcp"], &["192.0.2.1:1"])]).is_ok()
    );
    assert!(refusal(vec![with(vec![at(&[], &["1/tcp"])], &[])]).contains("no address"));
    assert!(refusal(vec![with(vec![at(&["10.9.9.9"], &[])], &[])]).contains("no ports"));
    // One family's source ranges shut the other out: that is a slip.
    let mut one_sided = at(&["10.96.0.9", "fd96::9"], &["80/tcp"]);
    one_sided.sources = ["10.0.0.0/8".parse().unwrap()].into();
    let text = refusal(vec![with(vec![one_sided], &[])]);
    assert!(text.contains("IPv6") && text.contains("fd96::9") && text.contains("::/0"), "{text}");
    // Deny ranges that leave nobody are one as well; what they leave of either family is counted.
    let mut denying = at(&["10.96.0.9", "fd96::9"], &["80/tcp"]);
    denying.denied = ["::/1".parse().unwrap(), "8000::/1".parse().unwrap()].into();
    let text = refusal(vec![with(vec![denying.clone()], &[])]);
    assert!(text.contains("deny_ranges leave no IPv6 client") && text.contains("fd96::9"), "{text}");
    denying.denied = (0..700u128)
        .map(|i| IpNet::new(std::net::Ipv6Addr::from_bits(i << 96).into(), 128).unwrap())
        .collect();
    let text = refusal(vec![with(vec![denying.clone()], &[])]);
    assert!(text.contains("deny_ranges count as the prefixes that they leave"), "{text}");
    denying.denied = ["fd00::/8".parse().unwrap()].into();
    assert!(
        Desired::new(vec![with(vec![denying.clone()], &[])]).is_ok(),
        "all of the other family are let in"
    );
    denying.addresses.truncate(1);
    let text = refusal(vec![with(vec![denying.clone()], &[])]);
    assert!(text.contains("fd00::/8 is not of the VIP's family (10.96.0.9)"), "{text}");
    denying.addresses = vec!["::1".parse().unwrap()];
    let text = refusal(vec![with(vec![denying], &[])]);
    assert!(text.contains("::1") && text.contains("deny_ranges = []"), "{text}");
    // Past the node ports can't be replaced, whichever frontend it is.
    let mut direct = at(&["10.96.0.9"], &["80:8080/tcp"]);
    direct.forward = Forwarding::all(ForwardKind::DsrIpip);
    let text = refusal(vec![with(vec![direct.clone()], &[])]);
    assert!(text.contains("80:8080/tcp") && text.contains("dsr-ipip"), "{text}");
    direct.ports = vec!["80/tcp".parse().unwrap()];
    assert!(Desired::new(vec![with(vec![direct.clone()], &["10.0.0.1:80"])]).is_ok(), "the port said twice");
    let text = refusal(vec![with(vec![direct], &["10.0.0.1:8080"])]);
    assert!(text.contains("10.0.0.1:8080"), "{text}");
}

#[test]
fn one_after_the_other_is_as_all_at_once() {
    let good = service("s", "10.96.0.1", &["80/tcp"], &["10.0.0.1"]);
    let mut desired = Desired::new(vec![good.clone()]).unwrap();
    let before = desired.clone();
    let mut other = service("t", "10.96.0.2", &["80/tcp"], &["10.0.0.2"]);
    other
        .frontends
        .push(Frontend { addresses: vec!["10.96.0.1".parse().unwrap()], ..good.frontends[0].clone() });
    for bad in [
        other,
        service("t", "10.0.0.1", &["80/tcp"], &[]),
        service("t", "10.96.0.3", &["80/tcp"], &["10.96.0.1:80"]),
        service("t", "10.96.0.3", &["80/tcp"], &["10.96.0.3"]),
    ] {
        let at_once = refusal(vec![good.clone(), bad.clone()]);
        assert_eq!(
            desired.replace("t", Some(Arc::new(bad)), &OwnAddresses::new()).unwrap_err().to_string(),
            at_once
        );
        assert_eq!(desired, before);
    }
}

#[test]
fn where_backends_are_checked() {
    let mut spec =
        service("s", "10.96.0.1", &["53/udp", "80:8080/tcp"], &["10.0.0.1", "10.0.0.2:9", "fd00::1"]);
    let six = service("s", "fd96::1", &["81/tcp"], &[]);
    spec.frontends.extend(six.frontends);
    let ports: Vec<_> = spec.backends.values().map(|b| spec.check_port(b)).collect();
    assert_eq!(ports, [Some(8080), Some(9), Some(81)]);
}

/// One of a few services at one of a few places, some of which are taken or a backend's.
fn any() -> impl Strategy<Value = ServiceSpec> {
    let ports = prop::sample::select(vec!["80/tcp", "81/tcp", "80-82/tcp", "80/udp"]);
    let backends = prop::collection::btree_set(0..8_u8, 0..4);
    (0..5_u8, 0..4_u8, ports, backends).prop_map(|(name, vip, port, backends)| {
        // 0 is all of the node's addresses; those of backends begin with a VIP's.
        let vip = if vip == 0 { "0.0.0.0".into() } else { format!("10.96.0.{vip}") };
        let backends: Vec<String> = backends.iter().map(|n| format!("10.96.0.{}", n + 3)).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        service(&format!("s{name}"), &vip, &[port], &backends)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// One after the other comes to what all at once come to, with all that is noted of them.
    #[test]
    fn changes_are_judged_as_the_whole(changes in prop::collection::vec((any(), prop::bool::weighted(0.8)), 1..40)) {
        let own = OwnAddresses::new();
        let mut desired = Desired::default();
        for (spec, add) in changes {
            let name = spec.name.clone();
            let mut all: Vec<ServiceSpec> =
                desired.services().values().filter(|s| s.name != name).map(|s| (**s).clone()).collect();
            all.extend(add.then(|| spec.clone()));
            let before = desired.clone();
            let taken = desired.replace(&name, add.then(|| Arc::new(spec)), &own);
            match Desired::new(all) {
                Ok(whole) => {
                    prop_assert_eq!(taken, Ok(()));
                    prop_assert_eq!(&desired, &whole);
                }
                Err(_) => {
                    prop_assert!(taken.is_err());
                    prop_assert_eq!(&desired, &before);
                }
            }
        }
    }
}

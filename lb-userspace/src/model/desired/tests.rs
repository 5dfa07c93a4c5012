use super::*;
use crate::model::{
    AlgorithmKind, ForwardKind,
    service::{check_name, make_backend, parse_backend},
};

pub fn service(name: &str, vip: &str, ports: &[&str], backends: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.into(),
        vip: vip.parse().unwrap(),
        except: BTreeSet::new(),
        sources: BTreeSet::new(),
        ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        algorithm: AlgorithmKind::LeastConnections,
        forward: Default::default(),
        affinity: None,
        timeouts: Default::default(),
        health: None,
        slow_start: None,
        fates: Default::default(),
        backends: BTreeMap::new(),
        from_file: true,
        warnings: Vec::new(),
    };
    for b in backends {
        spec.add(make_backend(name, b, None, None, true).unwrap()).unwrap();
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
    assert!(text.contains("ports 1-9/tcp and 9/tcp overlap"), "{text}");
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
    for (weight, named) in [(0, "weight 0"), (65_536, "weight 65536"), (-1, "weight -1")] {
        let text = make_backend("a", "10.0.0.1", Some(weight), None, true).unwrap_err().to_string();
        assert!(text.contains(named) && text.contains("1 to 65535"), "{text}");
    }
    assert!(make_backend("a", "10.0.0.1", Some(65_535), Some(1), true).is_ok());
    assert!(
        make_backend("a", "10.0.0.1", None, Some(0), true)
            .unwrap_err()
            .to_string()
            .contains("max_connections 0")
    );
    let mut twice = service("a", "10.96.0.10", &["80/tcp"], &["10.0.0.1:80"]);
    let again = make_backend("a", "10.0.0.1:80", Some(2), None, true).unwrap();
    assert!(twice.add(again).unwrap_err().to_string().contains("10.0.0.1:80 is declared twice"));
    let text = refusal(vec![service("a", "10.96.0.10", &["80/tcp"], &["10.96.0.10:8080"])]);
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
        "127.0.0.1",
        "255.255.255.255",
        "::1",
        "ff02::1",
        "::ffff:1.2.3.4",
        "fe80::1",
    ] {
        assert!(refusal(vec![service("a", vip, &["80/tcp"], &[])]).contains("can't be a VIP"), "{vip}");
    }
    for name in ["", "a b", "a/b/c", "/a", "..", "a/", &"x".repeat(64)] {
        assert!(check_name(name).is_err(), "{name}");
    }
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
    assert!(Desired::new(many(10_000).collect()).is_ok());
    assert!(refusal(many(10_001).collect()).contains("10001 services are too many; the limit is 10000"));
    let names: Vec<String> = (0..1025).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).skip(1).collect();
    let mut big =
        service("big", "10.96.0.1", &["80/tcp"], &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(Desired::new(vec![big.clone()]).is_ok());
    big.add(make_backend("big", "10.9.9.9", None, None, true).unwrap()).unwrap();
    assert!(refusal(vec![big]).contains("has 1025 backends; the limit is 1024"));
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
    let except = ["192.0.2.1".parse().unwrap()];
    let text = refusal(vec![ServiceSpec { except: except.into(), ..named.clone() }]);
    assert!(text.contains("vip_except") && text.contains("192.0.2.1"), "{text}");
    let text = refusal(vec![ServiceSpec { except: except.into(), ..all("b", "::") }]);
    assert!(text.contains("192.0.2.1 is not of the VIP's family (::); use IPv6"), "{text}");
    let sources = ["fd00::/64".parse().unwrap()];
    let text = refusal(vec![ServiceSpec { sources: sources.into(), ..named }]);
    assert!(text.contains("fd00::/64 is not of the VIP's family (192.0.2.1); use IPv4"), "{text}");
    let text = refusal(vec![ServiceSpec { forward: ForwardKind::DsrL2, ..all("a", "0.0.0.0") }]);
    assert!(text.contains("use nat or snat"), "{text}");
}

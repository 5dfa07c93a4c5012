use super::*;

fn decl(json: &str) -> ServiceDecl {
    serde_json::from_str(json).expect("it can be read")
}

fn spec(json: &str) -> Result<ServiceSpec, String> {
    let spec = decl(json).spec("s", false).map_err(|e| e.to_string())?;
    spec.validate().map(|()| spec).map_err(|e| e.to_string())
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Vec<String> {
    list.into_iter().map(|item| item.to_string()).collect()
}

#[test]
fn what_is_left_out_is_the_first_frontend_s() {
    let spec = spec(
        r#"{"vip": "10.96.0.10", "vips": ["fd96::10", "10.96.0.10"], "ports": ["80:8080/tcp"], "scope": "local",
            "source_ranges": ["10.0.0.0/8", "fd00::/8"], "forward": {"elsewhere": "snat"}, "stray": "pass",
            "frontends": [{"addresses": ["192.0.2.1"]},
                          {"addresses": ["::"], "ports": ["30080:8080/tcp"], "source_ranges": [], "forward": "nat"}]}"#,
    );
    let spec = spec.unwrap();
    assert_eq!(spec.stray(), StrayKind::Pass);
    let [first, second, third] = spec.frontends.as_slice() else { panic!("{:?}", spec.frontends) };
    assert_eq!(texts(&first.addresses), ["10.96.0.10", "fd96::10"], "each once");
    assert_eq!((first.scope, second.scope), (Scope::Local, Scope::All));
    assert_eq!(first.forward, Forwarding { pod: ForwardKind::Nat, elsewhere: ForwardKind::Snat });
    assert_eq!((second.forward, &second.ports), (first.forward, &first.ports));
    assert_eq!(texts(&second.sources), ["10.0.0.0/8"], "of its family");
    assert_eq!((third.forward, third.sources.len()), (Forwarding::default(), 0));
    assert_eq!(texts(&third.ports), ["30080:8080/tcp"]);
}

#[test]
fn addresses_are_left_out_where_all_of_the_node_s_are_meant() {
    let of = |except: &str| {
        spec(&format!(
            r#"{{"vip": "10.96.0.10", "vip_except": [{except}], "ports": ["80/tcp"],
                "frontends": [{{"addresses": ["0.0.0.0"]}}, {{"addresses": ["0.0.0.0", "::"], "ports": ["81/tcp"]}}]}}"#
        ))
    };
    let spec = of(r#""10.0.0.9", "fd00::9""#).unwrap();
    let except: Vec<_> = spec.frontends.iter().map(|f| texts(&f.except)).collect();
    assert_eq!(except, [vec![], vec!["10.0.0.9".to_string()], vec!["10.0.0.9".into(), "fd00::9".into()]]);
    let error = self::spec(r#"{"vip": "10.96.0.10", "vip_except": ["10.0.0.9"], "ports": ["80/tcp"]}"#);
    assert!(error.unwrap_err().contains("vip_except"));
}

#[test]
fn what_is_wrong_is_named() {
    for (json, says) in [
        (r#"{"ports": ["80/tcp"]}"#, "no address"),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "scope": "node"}"#, "\"node\""),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "stray": "drop"}"#, "\"drop\""),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "forward": {"pod": "masquerade"}}"#, "masquerade"),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "source_ranges": ["10.0.0.0/8"],
                "frontends": [{"addresses": ["fd96::1"]}]}"#,
            "fd96::1",
        ),
        (
            r#"{"vip": "10.96.0.10", "vips": ["fd96::1"], "ports": ["80/tcp"], "source_ranges": ["10.0.0.0/8"]}"#,
            "::/0",
        ),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "affinity": {"by": "port", "group": "g"}}"#,
            "not both",
        ),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "affinity": {"by": "client"}}"#, "\"client\""),
    ] {
        let error = spec(json).expect_err(json);
        assert!(error.contains(says) && !error.contains('\n'), "{json}: {error}");
    }
    let error =
        serde_json::from_str::<ServiceDecl>(r#"{"vip": "::", "ports": [], "forward": {"node": "nat"}}"#);
    assert!(error.unwrap_err().to_string().contains("pod = \"nat\""));
}

#[test]
fn forward_is_shown_as_short_as_it_can_be() {
    let json = |forward: Forwarding| serde_json::to_string(&ForwardDecl::from(forward)).unwrap();
    assert_eq!(json(Forwarding::all(ForwardKind::DsrL2)), "\"dsr-l2\"");
    let by = Forwarding { pod: ForwardKind::Nat, elsewhere: ForwardKind::Snat };
    assert_eq!(json(by), r#"{"pod":"nat","elsewhere":"snat"}"#);
    assert_eq!(ForwardDecl::from(by).spec(), Ok(by));
}

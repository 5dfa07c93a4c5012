use serde_json::json;

use super::*;

/// The examples of RFC 7396, appendix A.
#[test]
fn the_rfc_s_own_examples() {
    for (target, patch, result) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        (json!({"a": "foo"}), json!(null), json!(null)),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let mut merged = target.clone();
        merge(&mut merged, &patch);
        assert_eq!(merged, result, "{target} with {patch}");
    }
}

fn decl(json: Value) -> ServiceDecl {
    serde_json::from_value(json).expect("a declaration")
}

fn patched(from: Value, patch: Value) -> Result<Value, String> {
    let Value::Object(patch) = patch else { panic!("{patch}") };
    service("app", &decl(from), &patch).map(|decl| serde_json::to_value(decl).expect("JSON"))
}

#[test]
fn only_what_is_named_changes() {
    let app = || json!({"vip": "10.96.0.10", "ports": ["80/tcp"], "forward": "snat", "affinity": {"timeout": "1h"}});
    let forward = patched(app(), json!({"forward": {"pod": "nat"}})).unwrap();
    assert_eq!(forward["forward"], json!({"pod": "nat", "elsewhere": "snat"}));
    let affinity = patched(app(), json!({"affinity": {"group": "g"}})).unwrap();
    assert_eq!(affinity["affinity"], json!({"client_ip": true, "timeout": "1h", "group": "g"}));
    let gone = patched(app(), json!({"affinity": null, "forward": null})).unwrap();
    assert_eq!(gone, json!({"vip": "10.96.0.10", "ports": ["80/tcp"]}));
    // To take back a part of what isn't there makes nothing of it.
    let bare = json!({"vip": "10.96.0.10", "ports": ["80/tcp"]});
    assert_eq!(patched(bare.clone(), json!({"affinity": {"timeout": null}})).unwrap(), bare);
    // The file's names of lists.
    let more = patched(bare, json!({"backend": [{"address": "10.0.0.1"}]})).unwrap();
    assert_eq!(more["backends"], json!([{"address": "10.0.0.1"}]));
}

#[test]
fn what_can_t_be_is_said() {
    let bare = || json!({"vip": "10.96.0.10", "ports": ["80/tcp"]});
    for (patch, says) in [
        (json!({"name": "other"}), "can't be changed"),
        (json!({"ports": null}), "`ports`"),
        (json!({"colour": "red"}), "unknown field `colour`"),
        (json!({"slow_start": ["30s"]}), "a duration like"),
        (json!({"affinity": 3}), "change is not one of a declaration"),
    ] {
        let error = patched(bare(), patch.clone()).expect_err("it can't be");
        assert!(error.contains(says) && !error.contains('\n'), "{patch}: {error}");
    }
    assert!(patched(bare(), json!({"name": "app"})).is_ok());
    let Value::Object(patch) = json!({"address": "10.0.0.2"}) else { panic!() };
    assert!(backend("10.0.0.1", &BackendDecl::default(), &patch).unwrap_err().contains("can't be changed"));
}

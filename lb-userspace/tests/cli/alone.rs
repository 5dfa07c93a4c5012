//! What works without an agent: `check`, `doctor`, and what `demo` needs.

use serde_json::{Value, json};

use crate::ran::{Ran, flowpin, has, keys};

#[test]
fn check_shows_what_would_be_set_up_without_an_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("flowpin.toml");
    let file = path.to_str().expect("text");
    let good = r#"
        [[interface]]
        match = "lo"
        attach = "xdp"
        [[interface]]
        match = "no-such-*"
        attach = "tc"
        [[service]]
        name = "app"
        vip = "10.96.0.10"
        ports = ["8001-8003/tcp"]
        affinity = { client_ip = true }
        [[service.backend]]
        address = "10.0.1.11:5432"
        weight = 2
        max_connections = 1000
        [[service]]
        name = "empty"
        vip = "fd00::10"
        ports = ["53/udp"]
        timeouts = { client_request = "60s" }
    "#;
    std::fs::write(&path, good).expect("written");
    let text = Ran::of(&mut flowpin(&["check", "--config", file])).ok();
    has(
        &text,
        &[
            "is valid: 2 services, 1 backend\n",
            "8001-8003/tcp",
            "10.0.1.11:5432",
            "1,000",
            "warning: service \"empty\": timeouts.client_request is TCP's",
            "warning: service \"empty\" has no backend",
            "warning: interface match \"no-such-*\"",
        ],
    );
    let report = Ran::of(&mut flowpin(&["check", "--config", file, "-o", "json"])).json();
    assert_eq!(report["services"][0]["backends"][0]["weight"], 2);
    assert_eq!(report["services"][0]["declared"]["affinity"]["timeout"], 10_800.0);
    assert_eq!(report["services"][1]["declared"]["timeouts"], json!({"client_request": 60.0}));
    has(&text, &["SETTING", "affinity", "client ip, ipv6 prefix 128, timeout 3h", "client request 1m"]);
    assert_eq!(report["interfaces"][0]["present"], json!(["lo"]));
    // Of routes is warned too, as they are here.
    let warnings = report["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str);
    assert_eq!(warnings.filter(|warning| !warning.starts_with("route: ")).count(), 3, "{report}");
    has(&Ran::of(&mut flowpin(&["check"])).ok(), &["default configuration is valid"]);

    for own in ["127.0.0.1:80", "127.8.0.1", "[::1]:80", "::1", "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"] {
        let six = own.contains("::");
        let text = good.replace("10.0.1.11:5432", own);
        let text = if six { text.replace("10.96.0.10", "fd00::11") } else { text };
        std::fs::write(&path, text).expect("written");
        has(
            &Ran::of(&mut flowpin(&["check", "--config", file])).failed(1),
            &[&format!("backend {own} can't be reached"), "not loopback"],
        );
    }
    std::fs::write(&path, good.replace("name = \"empty\"", "name = \"app\"")).expect("written");
    let twice = Ran::of(&mut flowpin(&["check", "--config", file]));
    has(&twice.out, &["wrong: service \"app\": it is declared twice; give each a name of its own\n"]);
    has(&twice.failed(1), &["service \"app\" is wrong: it is declared twice"]);
    std::fs::write(&path, good.replace("weight = 2", "weight = 65536")).expect("written");
    has(&Ran::of(&mut flowpin(&["check", "--config", file])).failed(1), &[file, "65536", "0 to 65535"]);
    std::fs::write(&path, good.replace("weight", "wieght")).expect("written");
    has(&Ran::of(&mut flowpin(&["check", "--config", file])).failed(1), &[file, "wieght"]);
    has(
        &Ran::of(&mut flowpin(&["check", "--config", "/nonexistent.toml"])).failed(1),
        &["/nonexistent.toml"],
    );
}

#[test]
fn a_file_of_which_nothing_is_known_is_not_imported() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notes.txt");
    std::fs::write(&path, "Dear all;\nthe balancer is replaced on Monday;\n").expect("written");
    let file = path.to_str().expect("text");
    for format in ["haproxy", "ipvsadm", "keepalived", "nginx"] {
        let ran = Ran::of(&mut flowpin(&["import", format, file]));
        assert_eq!(ran.out, "", "{format}");
        has(&ran.failed(1), &["notes.txt: nothing of it is", format, "give the file's own format"]);
    }
    std::fs::write(&path, "global\n    daemon\n").expect("written");
    let ran = Ran::of(&mut flowpin(&["import", "haproxy", file]));
    has(&ran.err, &["declares no service"]);
    has(&ran.ok(), &["# line 2: daemon"]);
}

#[test]
fn doctor_lists_features_with_or_without_root() {
    let ran = Ran::of(&mut flowpin(&["doctor", "-o", "json"]));
    let list: Value = serde_json::from_str(&ran.out).expect("JSON in any case");
    let missing = list.as_array().expect("a list").iter().any(|f| f["status"] == "missing");
    assert_eq!(ran.code, i32::from(missing), "{}", ran.err);
    for feature in list.as_array().expect("a list") {
        assert_eq!(keys(feature), ["detail", "name", "status"]);
    }
    has(&Ran::of(&mut flowpin(&["doctor"])).out, &["FEATURE", "STATUS"]);
}

#[test]
fn the_schema_is_printed_for_editors() {
    let schema = Ran::of(&mut flowpin(&["check", "--schema"])).json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let service = &schema["$defs"]["ServiceDecl"];
    assert!(service["properties"]["frontend"].is_object() && service["properties"]["frontends"].is_null());
    assert_eq!(service["additionalProperties"], false);
    has(&Ran::of(&mut flowpin(&["check", "--schema", "--config", "x"])).failed(2), &["--config"]);
}

#[test]
fn the_demo_says_what_it_lacks_and_makes_nothing() {
    let line = Ran::of(flowpin(&["demo"]).env("PATH", "/nonexistent")).failed(1);
    let lacks = if nix::unistd::geteuid().is_root() { "apt install iproute2" } else { "sudo flowpin demo" };
    has(&line, &[lacks]);
}

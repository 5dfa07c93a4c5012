use clap::{Args, Command};
use serde_json::json;

use super::*;
use crate::source::{
    config,
    decl::{ServiceDecl, patch},
};

fn parse<T: Args + FromArgMatches>(line: &str) -> Result<T, Error> {
    let command = T::augment_args(Command::new("x").no_binary_name(true));
    T::from_arg_matches(&command.try_get_matches_from(line.split_whitespace())?)
}

fn made(line: &str) -> Value {
    Value::Object(parse::<Settings>(&format!("--vip 10.96.0.10 --port 80/tcp {line}")).expect(line).0)
}

fn change(line: &str) -> Value {
    Value::Object(parse::<Change>(line).expect(line).0)
}

/// A value that a flag takes.
fn example(setting: &Setting) -> String {
    match (setting.flag, setting.kind) {
        (_, Kind::Paths) => "/healthz".into(),
        ("affinity-group" | "health-host" | "health-service", _) => "g".into(),
        ("port", _) => "81/tcp".into(),
        ("source-range" | "deny-range", _) => "10.0.0.0/8".into(),
        ("vip-except" | "vip", _) => "10.96.0.11".into(),
        ("health-expect", _) => "204".into(),
        ("health-role", _) => "standby".into(),
        (_, Kind::Talk) => "expect=+PONG".into(),
        (_, Kind::Text) => "77s".into(),
        (_, Kind::Word(words)) => words[words.len() - 1].into(),
        (_, Kind::Number) => "7".into(),
        (_, Kind::Real) => "1.5".into(),
        (_, Kind::Rebalance) => "2%/min".into(),
        (_, Kind::Switch) => "false".into(),
        (_, Kind::List | Kind::Vips) => unreachable!("all of them are above"),
        (_, Kind::Affinity) => "client-ip".into(),
        (_, Kind::Health) => "http".into(),
        (_, Kind::Forward) => "pod=snat".into(),

        (_, Kind::Frontends) => "address=192.0.2.1,port=81/tcp".into(),
    }
}

/// A declaration to which every setting by itself can be added.
fn base(setting: &Setting) -> ServiceDecl {
    let health = match setting.flag {
        "health-service" => json!({"type": "grpc"}),
        "health-send" => json!({"type": "udp", "port": 1812}),
        "health-talk" => json!({"type": "tcp"}),
        "health-user" => json!({"type": "mysql"}),
        "health-password" | "health-database" => json!({"type": "postgres", "user": "u", "role": "primary"}),
        "health-role" => json!({"type": "postgres", "user": "u"}),
        _ => json!({"type": "http"}),
    };
    let mut base = json!({"vip": "0.0.0.0", "ports": ["80/tcp"]});
    if setting.key[0] == "rebalance" && setting.key.len() > 1 {
        base["rebalance"] = json!({"budget": "1%/min"});
    }
    if setting.key[0] == "health" && setting.key.len() > 1 {
        base["health"] = health;
    }
    serde_json::from_value(base).expect("a declaration")
}

#[test]
fn every_setting_can_be_made_changed_and_taken_back() {
    for setting in SETTINGS {
        let Value::Object(patch) = change(&format!("--{} {}", setting.flag, example(setting))) else {
            panic!()
        };
        let before = base(setting);
        let after = patch::service("s", &before, &patch).unwrap_or_else(|e| panic!("{}: {e}", setting.flag));
        assert_ne!(after, before, "{} changes something", setting.flag);
        after.spec("s", crate::model::Origin::Cli).unwrap_or_else(|e| panic!("{}: {e}", setting.flag));
        if NEEDED.contains(&setting.flag) {
            continue;
        }
        let Value::Object(back) = change(&format!("--default {}", setting.flag)) else { panic!() };
        let again = patch::service("s", &after, &back).unwrap_or_else(|e| panic!("{}: {e}", setting.flag));
        let spec = |decl: &ServiceDecl| decl.spec("s", crate::model::Origin::Cli).expect("it is good");
        match setting.key {
            // A part of affinity is affinity.
            ["affinity", _] => assert_eq!(again.affinity, Some(Default::default()), "{}", setting.flag),
            _ => assert_eq!(spec(&again), spec(&before), "{}", setting.flag),
        }
    }
}

/// Whatever a file can say of a service, the command line can.
#[test]
fn every_key_of_the_file_has_a_flag() {
    let schema = config::schema();
    let keys = |name: &str| schema["$defs"][name]["properties"].as_object().expect("an object").clone();
    let mut missing = Vec::new();
    for (key, parts) in [
        ("", "ServiceDecl"),
        ("affinity", "AffinityDecl"),
        ("timeouts", "TimeoutsDecl"),
        ("health", "HealthDecl"),
        ("on_removal", "RemovalWithin"),
    ] {
        for name in keys(parts).keys() {
            let path: Vec<&str> = [key, name].into_iter().filter(|part| !part.is_empty()).collect();
            let there = SETTINGS
                .iter()
                .any(|setting| setting.key == path || setting.key == &path[..1] && path.len() == 1);
            if !there {
                missing.push(path.join("."));
            }
        }
    }
    missing.sort();
    // Programs are the file's alone; the name is an argument, --vip is both, --affinity and --health are their tables' switches, the file has [[service.frontend]] and
    // [[service.backend]]: --frontend, and a command of its own.
    assert_eq!(
        missing,
        [
            "affinity.client_ip",
            "backend",
            "frontend",
            "health.command",
            "health.type",
            "name",
            "on_removal",
            "timeouts",
            "vips"
        ]
    );
}

#[test]
fn lists_are_whole_and_switches_bring_their_table() {
    assert_eq!(
        change("--vip 10.96.0.10 --vip fd96::10 --port 1/tcp --port 2/tcp"),
        json!({"vip": "10.96.0.10", "vips": ["fd96::10"], "ports": ["1/tcp", "2/tcp"]})
    );
    assert_eq!(change("--vip 10.96.0.10"), json!({"vip": "10.96.0.10", "vips": null}));
    assert_eq!(
        change("--health grpc --health-rise 3"),
        json!({"health": {"type": "grpc", "rise": 3, "path": null, "host": null, "expect": null, "send": null,
                          "talk": null, "user": null, "password": null, "database": null, "role": null, "command": null}})
    );
    assert_eq!(
        change("--health-path /a --health-path /b --affinity none"),
        json!({"health": {"path": ["/a", "/b"]}, "affinity": null})
    );
    assert_eq!(change("--health none --affinity none"), json!({"health": null, "affinity": null}));
    assert_eq!(
        change("--default timeout-idle,slow-start --default health --timeout-udp 5s"),
        json!({"timeouts": {"idle": null, "udp": "5s"}, "slow_start": null, "health": null})
    );
    let made =
        made("--health http --health-path /x --affinity client-ip --affinity-bound 3 --on-removal drain");
    assert_eq!(
        made,
        json!({"vip": "10.96.0.10", "ports": ["80/tcp"], "on_removal": {"policy": "drain"},
               "health": {"type": "http", "path": "/x", "service": null, "send": null, "talk": null, "user": null,
                          "password": null, "database": null, "role": null, "command": null},
               "affinity": {"client_ip": true, "bound": 3}})
    );
    serde_json::from_value::<ServiceDecl>(made).expect("a declaration");
}

#[test]
fn every_type_of_checks_has_its_settings() {
    let talk = change(
        r"--health tcp --health-talk send=PING\r\n --health-talk expect=+PONG --health-talk matches=a=b",
    );
    assert_eq!(
        talk["health"]["talk"],
        json!([{"send": r"PING\r\n"}, {"expect": "+PONG"}, {"matches": "a=b"}])
    );
    for kind in TYPES.iter().filter(|kind| **kind != "none") {
        assert_eq!(change(&format!("--health {kind}"))["health"]["type"], *kind);
    }
    for (key, types) in OF_TYPE {
        let flag = SETTINGS.iter().any(|setting| setting.key == ["health", key]);
        // A program isn't named by the command line.
        assert_eq!(flag, key != "command", "{key}");
        assert!(types.iter().all(|kind| TYPES.contains(kind)), "{key}");
    }
}

#[test]
fn what_is_wrong_with_flags_is_said() {
    for (line, says) in [
        ("", "--vip"),
        ("--default vip", "vip"),
        ("--default colour", "colour"),
        ("--slow-start 3s --default slow-start", "leave one out"),
        ("--health-rise many", "many"),
        ("--health-passive maybe", "maybe"),
        ("--on-deadline drain", "drain"),
        ("--slow-start", "DURATION"),
        ("--health icmp", "redis"),
        ("--health-talk PING", "send=TEXT"),
    ] {
        let error = parse::<Change>(line).expect_err(line).to_string();
        assert!(error.contains(says), "{line}: {error}");
    }
    for line in ["--affinity-bound 3", "--health-rise 3"] {
        let error = parse::<Settings>(&format!("--vip 10.96.0.10 --port 80/tcp {line}")).expect_err(line);
        assert!(error.to_string().contains(line.split('-').nth(2).unwrap()), "{error}");
    }
}

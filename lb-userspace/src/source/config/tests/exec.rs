//! Checks by programs: who may name one, and when.

use super::*;
use crate::{
    model::{ModelError, Origin},
    source::{
        Good, Runtime, Sources,
        decl::{HealthDecl, ServiceDecl, patch},
    },
};

const EXEC: &str = r#"
    [[service]]
    name = "a"
    vip = "10.96.0.10"
    ports = ["53/udp"]
    health = { type = "exec", command = ["/usr/local/bin/check", "{address}", "{port}"] }
    [[service.backend]]
    address = "10.0.1.11"
    [[service]]
    name = "b"
    vip = "10.96.0.11"
    ports = ["80/tcp"]
"#;

#[test]
fn programs_are_run_only_if_the_file_says_so() {
    let (off, on) = (EXEC.to_string(), format!("[agent]\nexec_checks = true\n{EXEC}"));
    let state = |text: &str, before: &Config| {
        let config = read(text, "f.toml", &before.services).expect("it can be read");
        let errors: Vec<_> =
            config.services.iter().map(|s| s.spec.clone().err().unwrap_or_default()).collect();
        (config, errors)
    };
    let (first, errors) = state(&off, &load(None).unwrap());
    assert!(errors[0].contains("exec_checks = true in [agent]") && errors[1].is_empty(), "{errors:?}");
    // What was read before is judged anew when [agent] says otherwise, and only then.
    let (second, errors) = state(&on, &first);
    assert_eq!(errors, ["", ""]);
    let same = |a: &Config, b: &Config| {
        let both = a.services.iter().zip(b.services.iter());
        both.map(|(a, b)| Arc::ptr_eq(&a.text, &b.text)).collect::<Vec<_>>()
    };
    assert_eq!(same(&first, &second), [false, true]);
    assert_eq!(same(&second, &state(&on, &second).0), [true, true]);
    let (third, errors) = state(&off, &second);
    assert!(errors[0].contains("exec_checks") && errors[1].is_empty(), "{errors:?}");
    assert_eq!(same(&third, &state(&off, &third).0), [true, true]);
    let spec = second.services[0].spec.as_ref().expect("it is good");
    assert_eq!(spec.check_port(&spec.backends["10.0.1.11"]), Some(53), "of either protocol");
    let shown = HealthDecl::from(spec.health.as_ref().expect("it is declared"));
    assert_eq!(shown.spec().expect("it is good"), spec.health, "it is shown as it is");
    for command in ["[]", "[\"check\", \"{address}\"]", "[\"/bin/x\", \"a\\u0000b\"]"] {
        let text = on.replace(r#"["/usr/local/bin/check", "{address}", "{port}"]"#, command);
        let (_, errors) = state(&text, &first);
        assert!(errors[0].contains("health.command") && errors[0].contains("no shell"), "{errors:?}");
    }
    let other = on.replace("type = \"exec\"", "type = \"tcp\"");
    assert!(state(&other, &first).1[0].contains("health.command is not for health checks of type \"tcp\""));
}

#[test]
fn no_other_source_names_a_program() {
    let config = parse(&format!("[agent]\nexec_checks = true\n{EXEC}"), "f.toml").unwrap();
    let decl = ServiceDecl::from(config.services[0].spec.as_ref().expect("it is good").as_ref());
    for origin in [Origin::Cli, Origin::Kubernetes] {
        let error = decl.spec("a", origin).unwrap_err().to_string();
        assert!(error.contains("only the config file may name one"), "{error}");
    }
    // By a change, too, and before anything else is said of it.
    let patch = serde_json::json!({"health": {"type": "exec"}});
    let plain = ServiceDecl { health: None, ..decl };
    let changed = patch::service("a", &plain, patch.as_object().expect("an object")).expect("it is a change");
    let error = changed.spec("a", Origin::Cli).unwrap_err();
    assert_eq!(error, ModelError::ExecNotOfFile);
    // And by a state file that somebody has written.
    let mut runtime = Runtime::default();
    runtime.services.insert("s".into(), changed);
    let good = Good::default();
    let declared = Sources::local(&[], &good, &runtime).one("s", &mut Vec::new()).expect("it is declared");
    assert!(declared.spec.is_err_and(|why| why.contains("only the config file may name one")));
}

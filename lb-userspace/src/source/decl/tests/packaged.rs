//! The config file of the package says every key there is.

use super::*;

const FILE: &str = include_str!("../../../../../packaging/flowpin.toml");

#[test]
fn the_packaged_file_says_every_key_and_is_read() {
    let config = config::parse(FILE, "flowpin.toml").unwrap();
    let spec = config.services[0].spec.as_ref().expect("it is good");
    let shown = serde_json::to_value(ServiceDecl::from(spec.as_ref())).unwrap();
    for key in ["affinity", "timeouts", "health", "slow_start", "frontends"] {
        assert!(shown.get(key).is_some(), "{key}");
    }
    assert_eq!(shown["slow_start"], 30.0, "in seconds");
    let schema = config::schema();
    for key in schema["$defs"]["ServiceDecl"]["properties"].as_object().expect("properties").keys() {
        let there = [format!("\n{key} ="), format!("[[service.{key}]]")];
        assert!(there.iter().any(|text| FILE.contains(text)), "{key} isn't in the packaged file");
    }
}

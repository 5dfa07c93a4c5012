//! A first run: what to do where nothing is attached, said when the agent starts.

use std::path::Path;

use super::seen::Seen;
use crate::source::{Config, SocketScope};

/// Says it, if no interface is named and the node's own processes aren't balanced either. `file`: the config file, if
/// there is one.
pub fn say(seen: &Seen, config: &Config, file: Option<&Path>) {
    if !config.interfaces.is_empty() || config.sockets.scope != SocketScope::Off {
        return;
    }
    tracing::warn!("{}", attach(&seen.likely(), file));
    tracing::info!(
        "services are kept until then: flowpin service add web --vip ADDRESS --port 80/tcp --backend ADDRESS:8080"
    );
}

/// What to write where, by the interfaces that clients are likely to come by.
fn attach(likely: &[&str], file: Option<&Path>) -> String {
    let names = if likely.is_empty() { &["NAME"] } else { likely };
    let rules: Vec<String> =
        names.iter().map(|name| format!("{{ match = \"{name}\", attach = \"xdp\" }}")).collect();
    let place = match file {
        Some(file) => format!("at the top of {}, and send the agent SIGHUP", file.display()),
        None => "to a file, and start the agent with --config FILE".into(),
    };
    format!(
        "nothing is attached, so nothing is balanced yet: no interface is named; write interface = [{}] {place}",
        rules.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_to_write_is_a_config() {
        for (likely, names) in [(&["eth0", "wan1"][..], &["eth0", "wan1"][..]), (&[], &["NAME"])] {
            let said = attach(likely, None);
            assert!(said.ends_with("start the agent with --config FILE"), "{said}");
            let from = said.find("interface = ").expect("a line of the file");
            let to = said.rfind(']').expect("its end");
            let config = crate::source::config::parse(&said[from..=to], "f.toml").expect(&said);
            let found: Vec<&str> = config.interfaces.iter().map(|rule| rule.pattern.as_str()).collect();
            assert_eq!(found, names, "{said}");
        }
        let said = attach(&["eth0"], Some(Path::new("/etc/flowpin/flowpin.toml")));
        assert!(
            said.ends_with("at the top of /etc/flowpin/flowpin.toml, and send the agent SIGHUP"),
            "{said}"
        );
    }
}

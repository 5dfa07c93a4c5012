//! What `flowpin import` makes of other balancers' files is a config that the agent takes as it is.

use std::path::Path;

use flowpin::source::{config, merge};
use flowpin_import::{Format, import};

#[test]
fn every_imported_file_is_a_good_config() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../import/tests/files");
    for (format, name) in [
        (Format::Haproxy, "haproxy.cfg"),
        (Format::Ipvsadm, "ipvsadm.rules"),
        (Format::Keepalived, "keepalived.conf"),
        (Format::Nginx, "nginx.conf"),
    ] {
        let text = std::fs::read_to_string(files.join(name)).expect("a file");
        let imported = import(format, &text).expect("it can be read");
        // Programs are off until somebody has read which they are.
        let off = "# [agent]\n# exec_checks = true\n";
        let runs = imported.text.lines().any(|line| line.starts_with("health = { type = \"exec\""));
        assert_eq!(imported.text.contains(off), runs, "{name}");
        let text = imported.text.replace(off, "[agent]\nexec_checks = true\n");
        let config = config::parse(&text, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, rejected) = merge::alone(&config);
        assert!(rejected.is_empty(), "{name}: {rejected:?}");
        assert!(imported.services > 0, "{name}");
        assert_eq!(config.services.len(), imported.services, "{name}");
    }
}

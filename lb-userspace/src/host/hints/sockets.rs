//! What sockets of the node's processes can't.

use super::{Hint, Setup, list};

/// Nobody's packets go to a loopback address, only sockets of processes are led from there.
pub(super) fn not_led(setup: &Setup) -> Option<Hint> {
    let names: Vec<String> = setup.not_led.iter().map(|name| format!("\"{name}\"")).collect();
    (!names.is_empty()).then(|| Hint {
        about: "sockets",
        text: format!(
            "processes of the node are led from loopback addresses at their sockets only, and [sockets] scope was off \
             when the agent started: {}",
            list(names.iter().map(String::as_str))
        ),
        remedy: "set scope = \"host\" in [sockets] and restart the agent".into(),
    })
}

/// Where a backend goes, sockets that are connected to it stay.
pub(super) fn not_ended(setup: &Setup) -> Option<Hint> {
    setup.not_ended.as_ref().map(|why| Hint {
        about: "sockets",
        text: format!(
            "connected sockets of the node's processes can't be ended ({why}): by UDP they stay at a backend that is gone \
             until their processes connect them anew"
        ),
        remedy: "use a kernel with CONFIG_INET_DIAG_DESTROY, or [sockets] scope = \"off\"".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{Found, hints},
        *,
    };

    #[test]
    fn what_sockets_cant() {
        let setup = Setup { not_led: ["a", "d/b:http"].map(String::from).into(), ..Setup::default() };
        let found = hints(&setup, &Found::default());
        assert_eq!((found.len(), found[0].about), (1, "sockets"), "{found:#?}");
        assert!(found[0].text.ends_with("off when the agent started: \"a\", \"d/b:http\""), "{found:#?}");
        let setup = Setup { not_led: BTreeSet::new(), not_ended: Some("for a test".into()), ..setup };
        let found = hints(&setup, &Found::default());
        assert_eq!((found.len(), found[0].about), (1, "sockets"), "{found:#?}");
        assert!(found[0].text.contains("can't be ended (for a test)"), "{found:#?}");
    }
}

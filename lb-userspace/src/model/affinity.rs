//! Clients that are to stay with their backend.

use std::time::Duration;

/// How a service binds clients to backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinitySpec {
    /// How long a client is remembered after its last flow.
    pub timeout: Duration,
    /// Services with the same group share their clients; `None`: this one has its own.
    pub group: Option<String>,
    /// Is a client bound at each port by itself? Excludes a group.
    pub by_port: bool,
    /// How many bits of an IPv6 address make a client, 1..=128. IPv4 addresses count whole.
    pub ipv6_prefix: u8,
    /// Open flows of one client beyond which further ones are balanced like any other's; `None`: no bound.
    pub bound: Option<u32>,
}

impl AffinitySpec {
    /// Three hours: Kubernetes' `sessionAffinityConfig.clientIP.timeoutSeconds`.
    pub const TIMEOUT: Duration = Duration::from_secs(10_800);

    /// The group's number, the same on every node and after every restart; never 0. Of `service`, if it has its own. With another prefix
    /// length it is another group, since its clients are others.
    pub fn number(&self, service: &str) -> u64 {
        let (kind, name) = self.group.as_deref().map_or(("service", service), |group| ("group", group));
        let bytes = kind.bytes().chain([0]).chain(name.bytes()).chain([0, self.ipv6_prefix]);
        // FNV-1a, 64 bits.
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        hash.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart() {
        let of = |group: Option<&str>, ipv6_prefix, service| {
            let group = group.map(Into::into);
            AffinitySpec { timeout: AffinitySpec::TIMEOUT, group, by_port: false, ipv6_prefix, bound: None }
                .number(service)
        };
        assert_eq!(of(Some("g"), 128, "a"), of(Some("g"), 128, "b"));
        assert_ne!(of(None, 128, "a"), of(None, 128, "b"));
        assert_ne!(of(None, 128, "a"), of(Some("a"), 128, "a"));
        assert_ne!(of(Some("g"), 128, "a"), of(Some("g"), 64, "a"));
    }
}

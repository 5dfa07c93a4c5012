//! Options: `service.flowpin.io/...` of a Service or its Namespace, or the same names in the config file. What is
//! nearer goes first; what can't be understood is said, and leaves the option as it was.

use std::time::Duration;

use super::objects::PREFIX;
use crate::model::{AlgorithmKind, ForwardKind, RemovalPolicies, RemovalPolicy, TimeoutSpec};

/// Which ports of a Service, or which Services, share their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AffinityScope {
    /// Each port has its own, as Kubernetes has it.
    #[default]
    Port,
    /// The ports of a Service.
    Service,
    /// Services of a namespace that name the same group.
    Group,
}

/// What is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// How an endpoint is chosen.
    pub algorithm: AlgorithmKind,
    /// How packets go; `None`: as Kubernetes has it.
    pub forward: Option<ForwardKind>,
    /// Most connections of an endpoint.
    pub max_connections: Option<u32>,
    /// How long a new endpoint takes to get all its share.
    pub slow_start: Option<Duration>,
    /// When connections are over.
    pub timeouts: TimeoutSpec,
    /// How long an endpoint that is going away may keep its connections.
    pub drain_deadline: Option<Duration>,
    /// What becomes of connections.
    pub policies: RemovalPolicies,
    /// Who shares clients.
    pub affinity_scope: Option<AffinityScope>,
    /// With whom.
    pub affinity_group: Option<String>,
    /// Bits of an IPv6 address that make a client.
    pub affinity_prefix: u8,
    /// Open connections of one client beyond which further ones are balanced like any other's.
    pub affinity_bound: Option<u32>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            algorithm: AlgorithmKind::LeastConnections,
            forward: None,
            max_connections: None,
            slow_start: None,
            timeouts: TimeoutSpec::default(),
            drain_deadline: None,
            policies: RemovalPolicies::default(),
            affinity_scope: None,
            affinity_group: None,
            affinity_prefix: 128,
            affinity_bound: None,
        }
    }
}

/// All that are known.
const KNOWN: &str = "lb-algorithm, forwarding-mode, max-connections, slow-start, timeout-idle, timeout-client-request, \
     timeout-backend-response, timeout-half-open, timeout-half-closed, timeout-udp, max-age, drain-deadline, on-removal, on-deadline, \
     affinity-group, affinity-scope, affinity-ipv6-prefix or affinity-bound";

/// How a value that switches an option off is written.
const OFF: &str = "off";

impl Knobs {
    /// Takes one more word for it, which goes before those so far. `allowed`: ways that may be asked for.
    ///
    /// # Errors
    /// It can't be understood, or mustn't be; then nothing has changed.
    pub fn set(&mut self, name: &str, text: &str, allowed: &[ForwardKind]) -> Result<(), String> {
        let text = text.trim();
        let bad = |known: &str| Err(format!("{PREFIX}{name} \"{text}\" is not known; use {known}"));
        let time = |longest: Duration, range: &str| {
            match text {
            OFF => Ok(None),
            _ => gep_2257(text).filter(|t| *t >= Duration::from_secs(1) && *t <= longest).map(Some).ok_or_else(|| {
                format!("{PREFIX}{name} \"{text}\" is not usable; write a duration like 30s, 15m or 1h30m, {range}, or {OFF}")
            }),
        }
        };
        let any = || time(LONGEST, "from 1s to 480h");
        let number = |most: u32| -> Result<Option<u32>, String> {
            match text.parse() {
                _ if text == OFF => Ok(None),
                Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
                _ => Err(format!("{PREFIX}{name} \"{text}\" is out of range; use 1 to {most}, or {OFF}")),
            }
        };
        match name {
            "lb-algorithm" => match text {
                "least-connections" | "least-connection" | "lc" => {
                    self.algorithm = AlgorithmKind::LeastConnections
                }
                "consistent-hash" | "maglev" | "hash" | "mh" => {
                    self.algorithm = AlgorithmKind::ConsistentHash
                }
                "round-robin" | "rr" => self.algorithm = AlgorithmKind::RoundRobin,
                "weighted-random" | "random" => self.algorithm = AlgorithmKind::WeightedRandom,
                _ => return bad("least-connections, maglev, round-robin or weighted-random"),
            },
            "forwarding-mode" => {
                self.forward = forward(text, allowed).map_err(|e| format!("{PREFIX}{name} {e}"))?
            }
            "max-connections" => self.max_connections = number(u32::MAX - 1)?,
            "slow-start" => self.slow_start = any()?,
            "timeout-idle" => self.timeouts.idle = any()?,
            "timeout-client-request" => self.timeouts.client_request = any()?,
            "timeout-backend-response" => {
                self.timeouts.backend_response = time(Duration::from_secs(1800), "from 1s to 30m")?;
            }
            "timeout-half-open" => self.timeouts.half_open = any()?,
            "timeout-half-closed" => self.timeouts.half_closed = any()?,
            "timeout-udp" => self.timeouts.udp = any()?,
            "max-age" => self.timeouts.max_age = any()?,
            "drain-deadline" => self.drain_deadline = any()?,
            "on-removal" => match RemovalPolicy::parse("on_removal", text) {
                Ok(policy) => self.policies.removal = policy,
                Err(_) => return bad("keep, drain or reset"),
            },
            "on-deadline" => match RemovalPolicy::parse("on_deadline", text) {
                Ok(policy) => self.policies.deadline = policy,
                Err(_) => return bad("keep or reset"),
            },
            "affinity-group" if text == OFF => self.affinity_group = None,
            "affinity-group" => match crate::model::service::check_name(text) {
                Ok(()) if text.len() <= 63 && !text.contains(['/', ':']) => {
                    self.affinity_group = Some(text.into())
                }
                _ => return bad("at most 63 of a-z A-Z 0-9 . _ -"),
            },
            "affinity-scope" => match text {
                "port" => self.affinity_scope = Some(AffinityScope::Port),
                "service" => self.affinity_scope = Some(AffinityScope::Service),
                "group" => self.affinity_scope = Some(AffinityScope::Group),
                _ => return bad("port, service or group"),
            },
            "affinity-ipv6-prefix" => match text.parse() {
                Ok(bits) if (1..=128).contains(&bits) => self.affinity_prefix = bits,
                _ => return bad("1 to 128"),
            },
            "affinity-bound" => self.affinity_bound = number(1_000_000)?,
            _ => return Err(format!("{PREFIX}{name} is not known; use {KNOWN}")),
        }
        Ok(())
    }
}

/// The longest that the flow table's stamps can measure.
const LONGEST: Duration = Duration::from_secs(480 * 3600);

/// `None`: as Kubernetes has it.
fn forward(text: &str, allowed: &[ForwardKind]) -> Result<Option<ForwardKind>, String> {
    if text == "default" {
        return Ok(None);
    }
    match ForwardKind::parse(text) {
        Ok(kind) if allowed.contains(&kind) => Ok(Some(kind)),
        Ok(_) => Err(format!(
            "\"{text}\" is not allowed here; the agent's config lists what is, in kubernetes.forwarding_modes"
        )),
        Err(_) => Err(format!("\"{text}\" is not known; use nat, snat, dsr-l2, dsr-ipip or default")),
    }
}

/// Kubernetes' form of durations (GEP-2257): one to four numbers of at most five digits with a unit.
fn gep_2257(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = after;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ForwardKind; 4] =
        [ForwardKind::Nat, ForwardKind::Snat, ForwardKind::DsrL2, ForwardKind::DsrIpip];

    #[test]
    fn each_option_is_taken() {
        let mut knobs = Knobs::default();
        for (name, text) in [
            ("lb-algorithm", "maglev"),
            ("forwarding-mode", "dsr-ipip"),
            ("max-connections", "300"),
            ("slow-start", "30s"),
            ("timeout-idle", "15h"),
            ("timeout-client-request", "1m30s"),
            ("timeout-backend-response", "60s"),
            ("timeout-half-open", "10s"),
            ("timeout-half-closed", "1h"),
            ("timeout-udp", "2m"),
            ("max-age", "24h"),
            ("drain-deadline", "5m"),
            ("on-removal", "reset"),
            ("on-deadline", "reset"),
            ("affinity-group", "g"),
            ("affinity-scope", "group"),
            ("affinity-ipv6-prefix", "64"),
            ("affinity-bound", "5"),
        ] {
            let before = knobs.clone();
            knobs.set(name, text, &ALL).unwrap();
            assert_ne!(knobs, before, "{name}");
            assert!(KNOWN.contains(name), "{name}");
        }
        let seconds = Duration::from_secs;
        let TimeoutSpec { idle, client_request, backend_response, max_age, half_open, half_closed, udp } =
            knobs.timeouts;
        assert_eq!(
            [idle, client_request, backend_response, max_age, half_open, half_closed, udp],
            [54_000, 90, 60, 86_400, 10, 3600, 120].map(|s| Some(seconds(s)))
        );
        assert_eq!((knobs.drain_deadline, knobs.slow_start), (Some(seconds(300)), Some(seconds(30))));
        assert_eq!(
            (knobs.policies.removal, knobs.policies.deadline),
            (RemovalPolicy::Reset, RemovalPolicy::Reset)
        );
        // Each that is off by default can be switched off again.
        for name in [
            "max-connections",
            "slow-start",
            "timeout-idle",
            "timeout-client-request",
            "timeout-backend-response",
            "timeout-half-open",
            "timeout-half-closed",
            "timeout-udp",
            "max-age",
            "drain-deadline",
            "affinity-group",
            "affinity-bound",
        ] {
            knobs.set(name, "off", &ALL).unwrap();
        }
        for (name, text) in [
            ("lb-algorithm", "lc"),
            ("forwarding-mode", "default"),
            ("on-removal", "keep"),
            ("on-deadline", "keep"),
            ("affinity-scope", "port"),
            ("affinity-ipv6-prefix", "128"),
        ] {
            knobs.set(name, text, &ALL).unwrap();
        }
        let (removal, deadline) = (RemovalPolicy::Keep, RemovalPolicy::Keep);
        let policies = RemovalPolicies { removal, deadline, ..RemovalPolicies::default() };
        let affinity_scope = Some(AffinityScope::Port);
        assert_eq!(knobs, Knobs { policies, affinity_scope, ..Knobs::default() });
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        for (name, text, says) in [
            ("lb-algoritm", "maglev", "lb-algorithm"),
            ("lb-algorithm", "sed", "least-connections, maglev, round-robin or weighted-random"),
            ("forwarding-mode", "dsr", "dsr-l2"),
            ("forwarding-mode", "dsr-l2", "not allowed"),
            ("max-connections", "0", "1 to 4294967294"),
            ("max-connections", "-1", "1 to 4294967294"),
            ("slow-start", "30", "30s"),
            ("slow-start", "100000s", "30s"),
            ("slow-start", "1d", "30s"),
            ("slow-start", "1h1h1h1h1h", "30s"),
            ("slow-start", "500ms", "from 1s"),
            ("timeout-idle", "481h", "to 480h"),
            ("timeout-backend-response", "31m", "30m"),
            ("on-removal", "kill", "keep, drain or reset"),
            ("on-deadline", "drain", "keep or reset"),
            ("affinity-group", "a/b", "63"),
            ("affinity-scope", "pod", "port, service or group"),
            ("affinity-ipv6-prefix", "129", "1 to 128"),
            ("affinity-bound", "0", "1 to 1000000"),
        ] {
            let mut knobs = Knobs::default();
            let error = knobs.set(name, text, &[ForwardKind::Nat]).unwrap_err();
            assert!(error.contains(says) && error.contains(name), "{name}: {error}");
            assert_eq!(knobs, Knobs::default(), "{name}");
        }
    }
}

//! Directives that have no equivalent, and what to do instead.

/// What to say of a name in a table.
pub fn remedy(table: &[(&str, &'static str)], name: &str) -> &'static str {
    if name.starts_with('@') {
        return "Only some machines have this line: write it without the word that begins with @, if this \
                is one.";
    }
    let known = table.iter().find(|(names, _)| names.split_whitespace().any(|known| known == name));
    known.map_or(UNKNOWN, |(_, remedy)| remedy)
}

/// Of what isn't keepalived's, as far as is known.
pub const UNKNOWN: &str = "It isn't a directive of keepalived's that is known here: look at what it does.";

const VRRP: &str = "Flowpin has no VRRP: keep keepalived for it. A VIP need not be on an interface; what \
     VRRP moves is the clients' way to it.";
const SCRIPTS: &str = "Flowpin runs no scripts: follow `flowpin events -f -o json`, or alert on its metrics.";
const MAIL: &str =
    "Flowpin sends no mail: alert on its metrics (packaging/alerts.yml), or follow `flowpin events -f`.";
const PROCESS: &str = "It is about keepalived's own processes: keep it while keepalived does VRRP.";

/// Blocks and words outside of virtual servers.
pub const GLOBAL: [(&str, &str); 8] = [
    (
        "global_defs global_tracking net_namespace net_namespace_ipvs instance use_pid_dir \
         linkbeat_use_polling",
        PROCESS,
    ),
    ("vrrp_instance vrrp_sync_group vrrp_script vrrp_track_process track_process vrrp_gratuitous", VRRP),
    (
        "static_ipaddress static_routes static_rules static_track_group garp_group",
        "Flowpin sets no addresses, routes or rules: keep it in keepalived, or in the network's \
         configuration.",
    ),
    (
        "track_file vrrp_track_file track_bfd",
        "Flowpin reads no files for weights: use `flowpin backend set SERVICE BACKEND --weight N`.",
    ),
    ("bfd_instance", "Flowpin speaks no BFD: health checks are what comes nearest."),
    ("SSL", "Certificates of servers that are checked by https aren't verified, and none is shown to them."),
    (
        "include includer includem includew includeb includea",
        "Only this file was read: import that one too, and put the two together.",
    ),
    ("notify_fifo notify_fifo_script", SCRIPTS),
];

/// In a virtual server.
pub const VIRTUAL: [(&str, &str); 13] = [
    ("quorum_up quorum_down notify_up notify_down", SCRIPTS),
    ("smtp_alert", MAIL),
    (
        "hysteresis",
        "A quorum is met, or not, at one weight: it has no hysteresis. health.rise has backends come back later.",
    ),
    (
        "alpha",
        "A new backend is healthy until its checks say otherwise; a restarted agent takes over who was not.",
    ),
    ("omega", "The agent leaves everything in force when it ends: there is nothing to run."),
    ("ha_suspend", "A service is checked whether the node has its VIP or not."),
    ("warmup", "Checks are spread by a tenth of their interval, at random."),
    ("ops", "Datagrams of one flow stay with one backend: timeouts.udp says how long."),
    (
        "persistence_engine",
        "Flowpin looks at no SIP dialogues: affinity by the client's address is what comes nearest.",
    ),
    ("ip_family", "It follows from the addresses of the service."),
    ("snmp_name", "There is no SNMP; metrics have the service's name."),
    (
        "inhibit_on_failure sorry_server_inhibit",
        "It is so here: an unhealthy backend gets nothing new, and keeps its connections unless \
         on_unhealthy = \"reset\".",
    ),
    ("hashed flag-1 flag-2 flag-3", "It is a flag of a scheduler that Flowpin doesn't have."),
];

/// In a real server, or a checker of any kind.
pub const REAL: [(&str, &str); 9] = [
    ("notify_up notify_down", SCRIPTS),
    ("smtp_alert", MAIL),
    (
        "lthreshold",
        "A full backend is used again as soon as one of its connections ends: there is no lower threshold.",
    ),
    ("alpha", "A new backend is healthy until its checks say otherwise."),
    ("warmup", "Checks are spread by a tenth of their interval, at random."),
    ("snmp_name", "There is no SNMP; metrics have the backend's address."),
    (
        "inhibit_on_failure",
        "It is so here: an unhealthy backend gets nothing new, and keeps its connections unless \
         on_unhealthy = \"reset\".",
    ),
    ("delay_before_retry", "After a bad check the next one comes after health.interval, as ever."),
    ("log_all_failures", "`flowpin_backend_health_check_failures_total` counts all of them."),
];

/// In a checker.
pub const CHECKER: [(&str, &str); 6] = [
    (
        "bindto bind_if bind_port fwmark",
        "Checks go out as the node's routes have it: Flowpin sets no source, interface or mark for them.",
    ),
    (
        "digest",
        "No check compares the digest of an answer: have the server say by its status whether it is well, or a \
         program (health of type exec).",
    ),
    (
        "regex regex_no_match regex_options regex_stack regex_min_offset regex_max_offset",
        "Of an answer of HTTP the status is looked at. Without TLS talk looks into it: health = { type = \"tcp\", \
         talk = [{ send = 'GET / HTTP/1.0\\r\\n\\r\\n' }, { matches = \"...\" }] }.",
    ),
    (
        "http_protocol fast_recovery tls_compliant",
        "There is no such choice: HTTP/1.1, one path, one connection a check.",
    ),
    ("enable_sni sni_name", "With https the name that is asked for is health.host."),
    (
        "helo_name host type name payload require_reply \
         min_reply_length max_reply_length track_file dynamic weight",
        "It goes with a kind of check that Flowpin doesn't have.",
    ),
];

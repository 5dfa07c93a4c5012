//! Directives that have no equivalent, and what to do instead.

/// Names with one remedy. A name that ends with `*` stands for all that begin so.
type Table = [(&'static str, &'static str)];

/// What to say of a name in a table.
pub fn remedy(table: &Table, name: &str) -> &'static str {
    let fits = |known: &str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => known == name,
    };
    let known = table.iter().find(|(names, _)| names.split_whitespace().any(fits));
    known.map_or(UNKNOWN, |(_, remedy)| remedy)
}

/// Of what isn't HAProxy's, as far as is known.
pub const UNKNOWN: &str = "HAProxy has nothing of this name that is known here: look at what it does.";
/// Of what no section has.
pub const NO_SECTION: &str = "It stands in no section: put it below the right one.";
/// Of a listener that leads to no server, and shows statistics.
pub const PAGE: &str = "It shows HAProxy's own statistics. Flowpin has a page for that, http://127.0.0.1:9479/ui, and metrics \
     beside it at /metrics (agent.metrics_listen says where): nothing is made of it.";

const REQUESTS: &str = "It is about requests, and Flowpin balances connections: keep HAProxy behind it for that, its \
     instances as backends of a service.";
const PROCESS: &str =
    "It is about HAProxy's own processes, of which there are none on the packets' way here.";
const TLS: &str = "Flowpin passes TLS on as it is: let the backends end it, or HAProxy as a backend.";
const LOG: &str = "A line of JSON for each connection, with tcplog's fields, is written where [log] connections says: \
     a file, journald, or otlp:http://HOST:4318.";
const SOCKETS: &str = "There are no sockets and buffers on the way: packets are sent on as they come, with \
     the ends' own options.";
const STATS: &str =
    "`flowpin top`, `flowpin stats` and the metrics page (agent.metrics_listen) show the counts.";
const STATE: &str = "The agent keeps its state itself (agent.state_file, maps under agent.pin_dir).";
const NAMES: &str = "Names are looked up by /etc/hosts and the servers of /etc/resolv.conf, again when their TTL is over (5 s to \
     5 min). Addresses of each IP version that the service has are used; while no answer comes, the last ones are.";
const RETRY: &str = "A client that is refused connects anew, and health checks take the backend out: \
     nothing is tried in its place.";
const MAIL: &str =
    "Flowpin sends no mail: alert on its metrics (packaging/alerts.yml), or follow `flowpin events -f`.";
const QUEUE: &str =
    "There is no queue: where all backends are at max_connections, clients are refused at once.";
const HEADER: &str = "Flowpin writes no PROXY header. With forward = \"nat\" backends see the client's own \
     address: have them expect no header.";
const NAMELESS: &str = "Services and backends have no number or text besides their name and address.";
/// Answers whose content decides.
pub const CONTENT: &str = "Of HTTP Flowpin looks at the status. Where other parts of an answer tell who may be used (a \
     primary), write health with type redis or postgres and a role, or with talk.";
/// A further request of a check by HTTP.
pub const APART: &str = "All paths of a check are asked of one host, and the same statuses are good: those of the first request. \
     Have the server say all at one path, or write health with type exec.";
/// A conversation that can't be told as it is.
pub const TALK: &str = "Flowpin's checks send texts over one connection without TLS, and want texts or regular \
     expressions: it looks whether the server takes connections. Write health.talk for what can be told so.";
/// An `acl` that isn't a list of addresses, or that no rule uses which is translated.
pub const ACL: &str = "Flowpin knows two kinds of rules, source_ranges and deny_ranges: whose connections a service \
     takes. What else decides needs HAProxy behind it.";
/// A rule that can't be said by a list of addresses.
pub const RULE: &str = "Flowpin knows two kinds of rules, source_ranges and deny_ranges: whose connections a service \
     takes, by address. Say what this one does there, in the firewall, or in HAProxy behind it.";
/// `.if`
pub const CONDITION: &str = "Conditions aren't looked at: all their branches have been read. Leave out of \
     this file what doesn't hold.";

/// Sections that are no proxies.
pub const SECTIONS: [(&str, &str); 7] = [
    (
        "peers",
        "With [cluster] nodes share how many connections each backend has, not what clients are bound to: each has its own.",
    ),
    ("resolvers", NAMES),
    ("userlist cache http-errors fcgi-app ruleset haterm", REQUESTS),
    ("mailers", MAIL),
    ("program", "Flowpin starts no programs: leave that to systemd."),
    ("ring log-forward log-profile traces", LOG),
    ("crt-store acme namespace_list namespace healthcheck", TLS),
];

/// In `global`.
pub const GLOBAL: [(&str, &str); 12] = [
    ("log*", LOG),
    ("stats stats-file", STATS),
    ("server-state-*", STATE),
    (
        "maxconn maxsslconn maxconnrate maxsessrate maxsslrate maxpipes",
        "Flowpin limits backends (max_connections) and services (service_max_connections), not the node: \
         conntrack.max_flows says how many flows there is room for.",
    ),
    ("ssl-* ca-base crt-base key-base issuers-chain-path ocsp-update* tune.ssl.* jwt*", TLS),
    (
        "tune.h1.* tune.h2.* tune.http.* tune.quic.* tune.comp.* tune.lua.* lua-* h1-* h2-* httpclient.* \
         deviceatlas-* 51degrees-* wurfl-* maxcomp* maxzlibmem limited-quic",
        REQUESTS,
    ),
    ("max-spread-checks spread-checks", "Checks are spread by a tenth of their interval, at random."),
    (
        "external-check insecure-fork-wanted",
        "Programs that check backends are run if exec_checks = true is in [agent]; they aren't otherwise.",
    ),
    (
        "setenv presetenv resetenv unsetenv set-var set-var-fmt default-path",
        "Variables aren't put in: write their values in the place of their names.",
    ),
    ("localpeer cluster-secret node description", NAMELESS),
    (
        "tune.* no* busy-polling profiling.* debug.* harden.* quiet zero-warning strict-limits expose-* \
         warn-* anonkey force-cfg-parser-pause pp2-* dns-accept-family prealloc-fd",
        PROCESS,
    ),
    (
        "chroot daemon user group uid gid pidfile nbthread nbproc cpu-* thread-group* \
         max-threads-per-group numa-cpu-mapping ulimit-n fd-hard-limit grace hard-stop-after \
         close-spread-time master-worker mworker-* unix-bind set-dumpable insecure-setuid-wanted \
         shm-stats-* stress-level",
        PROCESS,
    ),
];

/// In proxies.
pub const DIRECTIVES: [(&str, &str); 19] = [
    (
        "use_backend use-server force-be-switch",
        "Which pool or server is decided by a rule, and Flowpin decides by address and port alone: give \
         each pool a vip or ports of its own, or keep HAProxy behind it.",
    ),
    (
        "http-* capture redirect cookie reqadd rspadd req* rsp* compression errorfile errorfiles \
         errorloc* monitor* unique-id-* use-fcgi-app filter filter-sequence declare force-persist \
         ignore-persist persist appsession dispatch",
        REQUESTS,
    ),
    ("tcp-response", "Flowpin looks into no data."),
    ("stats", STATS),
    ("log log-format* log-tag log-steps error-log-format log-*", LOG),
    ("email-alert", MAIL),
    (
        "rate-limit fullconn backlog",
        "Flowpin limits how many connections a service or a backend has (service_max_connections, \
         max_connections), not how fast they come; nobody waits for a place.",
    ),
    ("retries retry-on", RETRY),
    (
        "source usesrc bind-process",
        "Addresses that stand in for clients' are said for the node: [snat] addresses.",
    ),
    (
        "hash-type hash-balance-factor hash-preserve-affinity",
        "Consistent hashing is as it is: by Maglev, weighted; an overloaded backend is held back by \
         max_connections only.",
    ),
    ("max-session-srv-conns max-keep-alive-queue", REQUESTS),
    (
        "clitcpka-* srvtcpka-*",
        "Keepalives pass between client and backend as they send them, and don't keep a connection from \
         being idle.",
    ),
    ("load-server-state-from-file server-state-file-name", STATE),
    ("id guid description", NAMELESS),
    ("quic-initial", "QUIC is UDP to Flowpin: ports = [\"443/udp\"] balances it, by addresses and ports."),
    ("crt ssl*", TLS),
    ("be-unpublished publish", "A service is in force as long as it is declared."),
    (
        "contimeout clitimeout srvtimeout",
        "It is an old name: write `timeout connect`, `timeout client` or `timeout server`, and import again.",
    ),
    ("errorlog", LOG),
];

/// `timeout`
pub const TIMEOUTS: [(&str, &str); 3] =
    [("http-request http-keep-alive tarpit", REQUESTS), ("queue", QUEUE), ("client-hs server-hs", TLS)];

/// `option`, but for those that say what a check asks.
pub const OPTIONS: [(&str, &str); 9] = [
    ("tcplog httplog httpslog logasap dontlog-normal dontlognull log-health-checks log-separate-errors", LOG),
    ("redispatch persist", RETRY),
    (
        "tcpka clitcpka srvtcpka",
        "Keepalives pass between client and backend as they send them, and don't keep a connection from \
         being idle.",
    ),
    ("allbackups", "It is so here: backups share what comes while no other backend takes any."),
    ("nolinger splice-* tcp-smart-* independent-streams use-small-buffers", SOCKETS),
    ("contstats socket-stats", "Counts are exact at each moment, for each backend."),
    ("abortonclose", QUEUE),
    (
        "transparent originalto",
        "Where clients connect to is said by vip and ports; backends see clients with forward = \"nat\".",
    ),
    (
        "http* forward* prefer-last-server checkcache h1-* disable-h2-upgrade idle-close-on-response \
         http-* accept-*",
        REQUESTS,
    ),
];

/// `option`, where it says what a check asks.
pub const CHECKS: [(&str, &str); 9] = [
    ("tcp-check", ""),
    ("pgsql-check", "It needs a user: write health = { type = \"postgres\", user = \"...\" }."),
    (
        "mysql-check",
        "Flowpin speaks the protocol of MySQL 4.1 and later: write health = { type = \"mysql\" }.",
    ),
    ("redis-check", ""),
    ("ldap-check", "Flowpin speaks no LDAP: it looks whether the server takes connections."),
    ("smtpchk", "Flowpin speaks no SMTP: it looks whether the server takes connections."),
    ("ssl-hello-chk", "It looks whether the server takes connections; health of type https speaks TLS."),
    ("spop-check", "Flowpin speaks no SPOP: it looks whether the server takes connections."),
    (
        "external-check",
        "No external-check command names the program: it looks whether the server takes connections. Write health = \
         { type = \"exec\", command = [\"/path\", \"{address}\", \"{port}\"] }.",
    ),
];

/// Parameters of `bind`.
pub const BIND: [(&str, &str); 7] = [
    (
        "accept-proxy accept-netscaler-cip",
        "Flowpin reads no PROXY header: it passes it on with the data, and backends have to take it.",
    ),
    ("interface namespace", "Which interfaces packets are balanced on is said for the node: [[interface]]."),
    (
        "maxconn nbconn",
        "Flowpin limits a service as a whole (service_max_connections), not one of its addresses.",
    ),
    ("name id label guid-prefix", NAMELESS),
    ("transparent", "It is so here: a VIP needs to be on no interface."),
    (
        "backlog tfo defer-accept mss tcp-ut tcp-md5sig tcp-ss cc nice process thread shards user group \
         uid gid mode level severity-output expose-fd idle-ping",
        "There are no listening sockets here: the backends' own settings hold.",
    ),
    (
        "alpn npn no-alpn crt crt-list default-crt ca-file ca-ignore-err ca-sign-file ca-sign-pass \
         ca-verify-file crl-file crt-ignore-err ciphers ciphersuites client-sigalgs sigalgs curves ecdhe \
         ech allow-0rtt force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 \
         generate-certificates ktls no-ca-names no-sslv3 no-strict-sni no-tls-tickets no-tlsv10 no-tlsv11 \
         no-tlsv12 no-tlsv13 prefer-client-ciphers proto quic-cc-algo quic-force-retry quic-socket \
         ssl-max-ver ssl-min-ver strict-sni tls-ticket-keys tls-tickets verify",
        TLS,
    ),
];

/// Parameters of `server`.
pub const SERVER: [(&str, &str); 15] = [
    (
        "ssl",
        "HAProxy speaks TLS to this server, and clients speak none. Flowpin passes on what clients say: \
         have them speak TLS, or the server take connections without.",
    ),
    (
        "send-proxy send-proxy-v2 send-proxy-v2-ssl send-proxy-v2-ssl-cn check-send-proxy \
         proxy-v2-options set-proxy-v2-tlv-fmt* no-send-proxy*",
        HEADER,
    ),
    (
        "fastinter downinter",
        "Flowpin has one interval of checks yet. A backend that clients were refused by is checked at once.",
    ),
    (
        "on-marked-up",
        "Connections stay where they are when a backend is back: close them with `flowpin connection \
         close --backend`.",
    ),
    ("on-marked-down", "It closes sessions with shutdown-sessions alone; that is on_unhealthy = \"reset\"."),
    (
        "observe on-error error-limit",
        "What becomes of clients' connections is looked at anyway: three in a row that are refused have \
         the backend checked at once (health.passive).",
    ),
    (
        "agent-check agent-addr agent-inter agent-port agent-send no-agent-check",
        "Flowpin asks no agents: a program can run `flowpin backend set --weight` and `drain`.",
    ),
    ("maxqueue minconn strict-maxconn", QUEUE),
    ("track", "Each backend is checked by itself: have it checked as the one that is tracked."),
    (
        "cookie redir non-stick stick max-reuse pool-conn-name pool-low-conn pool-max-conn \
         pool-purge-delay proto ws log-bufsize log-proto hash-key shard resolve-net",
        REQUESTS,
    ),
    ("init-addr resolve-opts resolve-prefer", NAMES),
    (
        "init-state",
        "A new backend is healthy until its checks say otherwise; a restarted agent takes over who was not.",
    ),
    ("id guid namespace healthcheck settings", NAMELESS),
    (
        "source interface socks4 tcp-ut tcp-md5sig tfo no-tfo cc idle-ping check-via-socks4 usesrc",
        "Connections are the clients' own: there are no sockets of the node's to set options of. \
         Addresses that stand in for clients' are [snat] addresses.",
    ),
    (
        "alpn npn allow-0rtt ca-file check-alpn check-proto check-sni check-sni-auto no-check-sni-auto \
         check-pool-conn-name check-reuse-pool no-check-reuse-pool ciphers ciphersuites client-sigalgs \
         crl-file crt curves force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 ktls \
         no-renegotiate renegotiate no-sni-auto no-ssl-reuse no-sslv3 no-tls-tickets no-tlsv10 no-tlsv11 \
         no-tlsv12 no-tlsv13 no-verifyhost quic-cc-algo sigalgs sni sni-auto ssl-max-ver ssl-min-ver \
         ssl-reuse tls-tickets verify verifyhost",
        TLS,
    ),
];

//! Directives that have no equivalent, and what to do instead.

/// What to say of a name in a table. A name that ends with `*` stands for all that begin so.
pub fn remedy(table: &[(&str, &'static str)], name: &str) -> &'static str {
    let fits = |known: &str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => known == name,
    };
    let known = table.iter().find(|(names, _)| names.split_whitespace().any(fits));
    known.map_or(UNKNOWN, |(_, remedy)| remedy)
}

/// Of what isn't nginx's, as far as is known.
pub const UNKNOWN: &str =
    "nginx's stream module has nothing of this name that is known here: look at what it does.";

/// What concerns requests.
pub const HTTP: &str = "It is about requests, and Flowpin balances connections: keep nginx behind it for \
     them, its instances as backends of a service.";

const PROCESS: &str = "It is about nginx's own processes, of which there are none on the packets' way here.";
const INCLUDE: &str =
    "Only this file was read: import that one too, and put the two together (`nginx -T` prints them as one).";
const LOG: &str = "A line of JSON for each connection is written where [log] connections says: \
     a file, journald, or otlp:http://HOST:4318.";
const VARIABLES: &str =
    "Flowpin decides by addresses and ports alone: keep nginx behind it where a variable decides.";
const TLS: &str = "Flowpin passes TLS on as it is: let the backends end it, or nginx as a backend.";

/// Outside of `stream`.
pub const TOP: [(&str, &str); 4] = [
    ("include", INCLUDE),
    ("mail", "Flowpin speaks no mail protocols: keep nginx behind it for them."),
    ("error_log", "The agent logs to its standard error, which the journal keeps; RUST_LOG says how much."),
    (
        "user worker_* events pid daemon master_process load_module env lock_file pcre_jit thread_pool \
         timer_resolution debug_points ssl_engine ssl_object_cache_inheritable google_perftools_profiles \
         mgmt",
        PROCESS,
    ),
];

/// In `stream` and its servers.
pub const STREAM: [(&str, &str); 22] = [
    ("include", INCLUDE),
    ("access_log log_format open_log_file_cache", LOG),
    ("error_log", "The agent logs to its standard error, which the journal keeps; RUST_LOG says how much."),
    ("map map_hash_* geo geoip_* split_clients set js_* num_map keyval*", VARIABLES),
    (
        "server_name server_names_hash_* ssl_preread preread_*",
        "Flowpin looks into no data, so names of TLS can't decide: a VIP or a port for each, or nginx \
         behind it.",
    ),
    ("ssl_* proxy_ssl*", TLS),
    (
        "proxy_protocol",
        "Flowpin writes no PROXY header. With forward = \"nat\" backends see the client's own address: \
         have them expect no header.",
    ),
    ("proxy_protocol_timeout set_real_ip_from", "Flowpin reads no PROXY header: what comes is the client."),
    (
        "proxy_next_upstream*",
        "A client that is refused connects anew, and health checks take the backend out: nothing is tried \
         in its place.",
    ),
    (
        "proxy_half_close",
        "It is so here: a connection that one side has closed goes on until the other does, or \
         timeouts.half_closed.",
    ),
    (
        "proxy_requests proxy_responses",
        "Flowpin doesn't count datagrams: a flow of UDP ends when it is silent for timeouts.udp.",
    ),
    (
        "proxy_upload_rate proxy_download_rate",
        "Flowpin limits no rates: use tc on the node, or limit at the backends.",
    ),
    (
        "proxy_buffer_size proxy_downstream_buffer proxy_upstream_buffer proxy_socket_* tcp_nodelay \
         preread_buffer_size",
        "There are no sockets and buffers on the way: packets are sent on as they come.",
    ),
    (
        "limit_conn*",
        "Flowpin limits the connections of a backend (max_connections), not of a client yet; \
         affinity.bound comes nearest.",
    ),
    (
        "resolver resolver_timeout",
        "Names are looked up by /etc/hosts and the servers of /etc/resolv.conf, again when their TTL is over (5 s to \
         5 min).",
    ),
    ("variables_hash_*", PROCESS),
    (
        "zone state status_zone zone_sync*",
        "The agent keeps its state itself (agent.state_file, maps under agent.pin_dir).",
    ),
    ("keepalive* ntlm queue sticky*", HTTP),
    ("least_time", "Flowpin doesn't measure times: least-connections, its default, comes nearest."),
    ("access", VARIABLES),
    ("proxy_bind", "Addresses that stand in for clients' are said for the node: [snat] addresses."),
    ("mqtt* mqtt_preread otel*", "Flowpin looks into no data: keep nginx behind it for that."),
];

/// Parameters of `listen`.
pub const LISTEN: [(&str, &str); 6] = [
    (
        "reuseport backlog=* rcvbuf=* sndbuf=* fastopen=* deferred accept_filter=* setfib=* bind \
         multipath",
        "There are no listening sockets here: the backends' own settings hold.",
    ),
    (
        "so_keepalive=*",
        "Keepalives pass between client and backend as they send them, and don't keep a connection from \
         being idle.",
    ),
    (
        "proxy_protocol",
        "Flowpin reads no PROXY header: it passes it on with the data, and backends have to take it.",
    ),
    ("default_server", "A service has no names to choose by: each address and port is one service's."),
    ("ipv6only=*", "An address of IPv6 is one of IPv6 only; add one of IPv4 to vips for both."),
    ("quic http2 http3", HTTP),
];

/// Parameters of an upstream's `server`.
pub const SERVER: [(&str, &str); 3] = [
    (
        "service=*",
        "Flowpin asks for addresses, not for SRV records: write the names and ports of the servers.",
    ),
    (
        "fail_timeout=*",
        "Flowpin asks a backend itself whether it is back: health.interval and rise say how soon.",
    ),
    ("route=* drain", "Flowpin has `flowpin backend drain` instead."),
];

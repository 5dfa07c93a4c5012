//! Sixteen config files in place of other balancers', as short as they can be.

/// One of them.
pub struct Translation {
    /// What it is called here.
    pub name: &'static str,
    /// The file. Its comments say what it stands for.
    pub text: &'static str,
    /// How many services and backends it has.
    pub has: (usize, usize),
    /// Pages of `docs/migration`, and their words on what is here instead of something that Flowpin hasn't.
    pub instead: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ALL: [Translation; 16] = [
    Translation {
        name: "patroni",
        text: r#"
# HAProxy: two listeners before the same two PostgreSQL servers, 5000 for writes and 6000 for reads. option httpchk GET
# /primary and /replica, default-server port 8008 inter 3s fall 3 rise 2 maxconn 100 on-marked-down shutdown-sessions,
# timeout client and server 30m, timeout connect 4s, retries 2.
[[service]]
name = "pg-write"
vip = "10.96.0.10"
ports = ["5000/tcp"]
timeouts = { idle = "30m", half_open = "4s" }
health = { type = "http", port = 8008, path = "/primary", interval = "3s", timeout = "5s", rise = 2, fall = 3 }
on_unhealthy = "reset"
[[service.backend]]
address = "10.2.0.2:5432"
max_connections = 100
[[service.backend]]
address = "10.2.1.2:5432"
max_connections = 100

[[service]]
name = "pg-read"
vip = "10.96.0.10"
ports = ["6000/tcp"]
timeouts = { idle = "30m", half_open = "4s" }
health = { type = "http", port = 8008, path = "/replica", interval = "3s", timeout = "5s", rise = 2, fall = 3 }
on_unhealthy = "reset"
[[service.backend]]
address = "10.2.0.2:5432"
max_connections = 100
[[service.backend]]
address = "10.2.1.2:5432"
max_connections = 100
"#,
        has: (2, 4),
        instead: &[("haproxy", "**No retries.**")],
    },
    Translation {
        name: "patroni-six",
        text: r#"
# HAProxy: bind [fd96::10]:5432, httpchk of Patroni's port for the primary, nothing else said.
[[service]]
name = "pg"
vip = "fd96::10"
ports = ["5432/tcp"]
health = { type = "http", port = 8008, path = "/primary" }
[[service.backend]]
address = "fd02::2"
[[service.backend]]
address = "fd02:1::2"
"#,
        has: (1, 2),
        instead: &[],
    },
    Translation {
        name: "galera",
        text: r#"
# HAProxy: bind *:3306, balance leastconn, option httpchk, three servers with check port 9200 inter 12s rise 3 fall 3.
[[service]]
name = "galera"
vip = "0.0.0.0"
ports = ["3306/tcp"]
algorithm = "least-connections"
health = { type = "http", port = 9200, interval = "12s", timeout = "12s", rise = 3, fall = 3 }
[[service.backend]]
address = "10.2.0.2"
[[service.backend]]
address = "10.2.1.2"
[[service.backend]]
address = "10.2.2.2"
"#,
        has: (1, 3),
        instead: &[],
    },
    Translation {
        name: "redis",
        text: r#"
# HAProxy: tcp-check send PING, expect +PONG, send info replication, expect role:master, send QUIT, expect +OK; the
# second server is a backup; inter 2s downinter 5s rise 2 fall 2, on-marked-down shutdown-sessions, on-marked-up
# shutdown-backup-sessions, option tcpka.
[[service]]
name = "redis"
vip = "10.96.0.10"
ports = ["6379/tcp"]
health = { type = "tcp", interval = "2s", rise = 2, fall = 2, talk = [
    { send = 'PING\r\n' }, { expect = '+PONG\r\n' },
    { send = 'INFO replication\r\n' }, { expect = 'role:master\r\n' },
    { send = 'QUIT\r\n' }, { expect = '+OK\r\n' },
] }
on_unhealthy = "reset"          # the backup's sessions end by it, too: it is a replica again when the other is master
[[service.backend]]
address = "10.2.0.2:6380"
[[service.backend]]
address = "10.2.1.2:6381"
backup = true
"#,
        has: (1, 2),
        instead: &[
            ("haproxy", "`on-marked-up shutdown-backup-sessions` has no equivalent"),
            ("haproxy", "`inter` is the only interval"),
        ],
    },
    Translation {
        name: "backup-and-weight-0",
        text: r#"
# HAProxy: a server, a second one with weight 0 that is out of use for now, and a third one that is a backup.
[[service]]
name = "pg"
vip = "10.96.0.10"
ports = ["5432/tcp"]
[[service.backend]]
address = "10.2.0.2"
[[service.backend]]
address = "10.2.1.2"
weight = 0
[[service.backend]]
address = "10.2.2.2"
backup = true
"#,
        has: (1, 3),
        instead: &[],
    },
    Translation {
        name: "mark",
        text: r#"
# iptables -t mangle marks ports 80 and 443 of an address with 100; ipvsadm -A -f 100 -s rr -p 300, two servers with -g.
# One service has both ports, and one affinity over both.
[[service]]
name = "web"
vip = "10.96.0.10"
ports = ["80/tcp", "443/tcp"]
forward = "dsr-l2"
algorithm = "round-robin"
affinity = { client_ip = true, timeout = "300s" }
[[service.backend]]
address = "10.2.0.2"
[[service.backend]]
address = "10.2.1.2"
"#,
        has: (1, 2),
        instead: &[(
            "ipvsadm",
            "There are no marks: a service has all addresses and ports that a mark stood for",
        )],
    },
    Translation {
        name: "port-0",
        text: r#"
# ipvsadm -A -t ADDRESS:0 -s wlc -p 600; -a with -g -w 4, and with -g -w 2.
[[service]]
name = "all-ports"
vip = "10.96.0.10"
ports = ["1-65535/tcp"]
forward = "dsr-l2"
affinity = { client_ip = true, timeout = "600s" }
[[service.backend]]
address = "10.2.0.2"
weight = 4
[[service.backend]]
address = "10.2.1.2"
weight = 2
"#,
        has: (1, 2),
        instead: &[],
    },
    Translation {
        name: "keepalived",
        text: r#"
# keepalived: virtual_server ADDRESS 3306, delay_loop 6, lvs_sched wrr, lvs_method DR, persistence_timeout 50,
# sorry_server; real servers of weight 1 and 2 with inhibit_on_failure and TCP_CHECK (connect_timeout 3, retry 3),
# notify_up, notify_down. VRRP stays with keepalived.
[[service]]
name = "mysql"
vip = "10.96.0.10"
ports = ["3306/tcp"]
forward = "dsr-l2"
algorithm = "round-robin"
affinity = { client_ip = true, timeout = "50s" }
health = { type = "tcp", interval = "6s", timeout = "3s", fall = 4, rise = 1 }
on_unhealthy = "keep"           # inhibit_on_failure
[[service.backend]]
address = "10.6.0.11"
weight = 1
[[service.backend]]
address = "10.6.0.12"
weight = 2
[[service.backend]]
address = "10.6.0.13"
backup = true
"#,
        has: (1, 3),
        instead: &[
            ("keepalived", "`on_unhealthy = \"keep\"`, the default"),
            ("keepalived", "**Scripts** (`notify_up`): Flowpin runs none."),
            ("keepalived", "## What stays with keepalived VRRP."),
        ],
    },
    Translation {
        name: "nginx",
        text: r#"
# nginx, stream: listen 53 udp, two servers, of weight 2 and by name; listen 443, three servers with max_fails=2
# fail_timeout=30s.
[[service]]
name = "dns"
vip = "10.96.0.10"
ports = ["53/udp"]
algorithm = "round-robin"
health = { type = "udp", interval = "5s", fall = 2, rise = 1 }
[[service.backend]]
address = "10.2.0.2:53"
weight = 2
[[service.backend]]
address = "dns2.example.net:53"

[[service]]
name = "manager"
vip = "10.96.0.10"
ports = ["443/tcp"]
algorithm = "round-robin"
health = { type = "tcp", interval = "5s", fall = 2 }
[[service.backend]]
address = "10.2.0.3"
[[service.backend]]
address = "10.2.0.4"
[[service.backend]]
address = "10.2.0.5"
"#,
        has: (2, 5),
        instead: &[("nginx", "`fail_timeout` has no equivalent")],
    },
    Translation {
        name: "network",
        text: r#"
# AWS, a Service of type LoadBalancer with an NLB of IP targets: listeners 80 -> 8080 and 443 -> 8443, health check HTTP
# /healthz/ready at 15021, cross-zone, proxy protocol, deregistration delay 300 s.
[[service]]
name = "ingress"
vip = "10.96.0.10"
ports = ["80:8080/tcp", "443:8443/tcp"]
forward = "nat"                 # targets see clients' addresses without a PROXY protocol
algorithm = "consistent-hash"
timeouts = { idle = "350s" }
health = { type = "http", port = 15021, path = "/healthz/ready", expect = "200-399", interval = "10s", rise = 3, fall = 3, panic = 1 }
on_unhealthy = "reset"
on_removal = { policy = "drain", deadline = "300s" }
[[service.backend]]
address = "10.2.0.2"
[[service.backend]]
address = "10.2.1.2"
[[service.backend]]
address = "10.2.2.2"
"#,
        has: (1, 3),
        instead: &[("nlb", "**PROXY protocol.** Flowpin neither writes nor reads it.")],
    },
    Translation {
        name: "cockroach",
        text: r#"
# HAProxy: bind :26000 before 26257, balance leastconn, timeout client and server 30m, option clitcpka, httpchk GET
# /health?ready=1 at 8080; and a listener for the console, without checks.
[[service]]
name = "sql"
vip = "0.0.0.0"
ports = ["26000:26257/tcp"]
timeouts = { idle = "30m" }
health = { type = "http", port = 8080, path = "/health?ready=1" }
[[service.backend]]
address = "roach-0.example.net:26257"
[[service.backend]]
address = "10.2.1.2"

[[service]]
name = "console"
vip = "0.0.0.0"
ports = ["8080/tcp"]
health = { type = "none" }
[[service.backend]]
address = "10.2.1.2"
"#,
        has: (2, 3),
        instead: &[],
    },
    Translation {
        name: "sctp",
        text: r#"
# ipvsadm -A --sctp-service ADDRESS:3868: Diameter, which peers may speak by TCP as well. SCTP stays where it is.
[[service]]
name = "diameter"
vip = "10.96.0.10"
ports = ["3868/tcp"]
[[service.backend]]
address = "10.2.0.2"
"#,
        has: (1, 1),
        instead: &[("ipvsadm", "**SCTP** isn't balanced: leave such a service to IPVS")],
    },
    Translation {
        name: "six-to-four",
        text: r#"
# HAProxy: bind [fd96::10]:80 before an IPv4 server. Clients of both IP versions need a backend of theirs: the same
# server's other address.
[[service]]
name = "web"
vips = ["fd96::10", "10.96.0.10"]
ports = ["80/tcp"]
[[service.backend]]
address = "fd02::2"
[[service.backend]]
address = "10.2.0.2"
"#,
        has: (1, 2),
        instead: &[("haproxy", "**From one IP version to the other** nothing is led")],
    },
    Translation {
        name: "names",
        text: r#"
# HAProxy: backend Postgres_RW.prod/main, bind :5432 without a word on the protocol, which is TCP there.
[[service]]
name = "Postgres_RW.prod/main"
vip = "10.96.0.10"
ports = ["5432/tcp"]
[[service.backend]]
address = "10.2.0.2"
"#,
        has: (1, 1),
        instead: &[],
    },
    Translation {
        name: "soon",
        text: r#"
# HAProxy: check inter 500ms, timeout check 200ms.
[[service]]
name = "pg"
vip = "10.96.0.10"
ports = ["5432/tcp"]
health = { type = "tcp", interval = "500ms", timeout = "200ms" }
[[service.backend]]
address = "10.2.0.2"
"#,
        has: (1, 1),
        instead: &[],
    },
    Translation {
        name: "statuses",
        text: r#"
# HAProxy: option httpchk, http-check expect status 200-399.
[[service]]
name = "web"
vip = "10.96.0.10"
ports = ["80/tcp"]
health = { type = "http", expect = "200-399" }
[[service.backend]]
address = "10.2.0.2"
"#,
        has: (1, 1),
        instead: &[],
    },
];

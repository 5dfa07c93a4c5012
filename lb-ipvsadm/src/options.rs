//! Every command and option of ipvsadm(8), and what becomes of it. Nothing that the manual page names is passed over.

/// What becomes of it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what it does there, as far as its value allows.
    Done,
    /// It is always so.
    Always,
    /// Flowpin has nothing like it; the sentence says what to do instead.
    Refused(&'static str),
}

/// A command: the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verb {
    /// One name: the short one, if there is one.
    pub name: &'static str,
    /// The long one.
    pub long: &'static str,
    /// The letter by which [`Opt::of`] names it.
    pub letter: char,
    /// What must be given with it, by name.
    pub needs: &'static [&'static str],
    /// What becomes of it.
    pub fate: Fate,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value.
    Value,
    /// A value, or none.
    Perhaps,
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// One name: the short one, if there is one.
    pub name: &'static str,
    /// The long one.
    pub long: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// One of these may be given: what they are about, or its own name.
    pub group: &'static str,
    /// Letters of the commands that it goes with; `*`: all.
    pub of: &'static str,
    /// What becomes of it.
    pub fate: Fate,
}

const fn verb(
    name: &'static str,
    long: &'static str,
    letter: char,
    needs: &'static [&'static str],
    fate: Fate,
) -> Verb {
    Verb { name, long, letter, needs, fate }
}

const SYNC: Fate = Fate::Refused(
    "nodes don't share connections, and after a failover clients connect anew. What nodes do share is how many \
     connections each has: [cluster] in the config file, and \"flowpin cluster\"",
);
const MARKS: Fate = Fate::Refused(
    "Flowpin has no services by firewall mark. Give the addresses and ports that are marked to a service: \
     \"flowpin service add NAME --vip ADDRESS --port 80/tcp --port 443/tcp\"; it keeps clients together over all of \
     its ports, and --affinity-group does over services",
);
const SCTP: Fate = Fate::Refused("Flowpin balances TCP and UDP, not SCTP; leave this service to IPVS");
const TUNNEL: Fate = Fate::Refused(
    "Flowpin's tunnel is IPIP, which has neither ports nor checksums; leave it out, and have the server take IPIP",
);

/// All commands.
pub const COMMANDS: [Verb; 15] = [
    verb("-A", "--add-service", 'A', &["service-address"], Fate::Done),
    verb("-E", "--edit-service", 'E', &["service-address"], Fate::Done),
    verb("-D", "--delete-service", 'D', &["service-address"], Fate::Done),
    verb("-C", "--clear", 'C', &[], Fate::Done),
    verb("-R", "--restore", 'R', &[], Fate::Done),
    verb("-S", "--save", 'S', &[], Fate::Done),
    verb("-a", "--add-server", 'a', &["service-address", "real-server"], Fate::Done),
    verb("-e", "--edit-server", 'e', &["service-address", "real-server"], Fate::Done),
    verb("-d", "--delete-server", 'd', &["service-address", "real-server"], Fate::Done),
    verb("-L", "--list", 'L', &[], Fate::Done),
    verb(
        "-Z",
        "--zero",
        'Z',
        &[],
        Fate::Refused(
            "Flowpin's counters aren't reset, since others read them too. See what is new with -L --rate, or compare two \
             readings of -L --stats --exact",
        ),
    ),
    verb("--set", "--set", 's', &[], Fate::Done),
    verb("--start-daemon", "--start-daemon", 'y', &[], SYNC),
    verb("--stop-daemon", "--stop-daemon", 'y', &[], SYNC),
    verb("-h", "--help", 'h', &[], Fate::Done),
];

const fn option(name: &'static str, long: &'static str, takes: Takes, of: &'static str, fate: Fate) -> Opt {
    let (_, group) = long.split_at(2);
    Opt { name, long, takes, group, of, fate }
}

const fn grouped(
    group: &'static str,
    name: &'static str,
    long: &'static str,
    takes: Takes,
    of: &'static str,
    fate: Fate,
) -> Opt {
    Opt { name, long, takes, group, of, fate }
}

/// All options.
#[rustfmt::skip]
pub const OPTIONS: [Opt; 41] = {
    use Fate::{Always, Done, Refused};
    use Takes::{Nothing, Perhaps, Value};
    const SERVICE: &str = "service-address";
    const FORWARD: &str = "forwarding-method";
    [
        grouped(SERVICE, "-t", "--tcp-service", Value, "AEDaedLZ", Done),
        grouped(SERVICE, "-u", "--udp-service", Value, "AEDaedLZ", Done),
        grouped(SERVICE, "--sctp-service", "--sctp-service", Value, "AEDaedLZ", SCTP),
        grouped(SERVICE, "-f", "--fwmark-service", Value, "AEDaedLZ", MARKS),
        option("-6", "--ipv6", Nothing, "*", Refused("it goes with -f, and Flowpin has no services by firewall mark; an IPv6 address is written in brackets, as -t [2001:db8::80]:80")),
        option("-s", "--scheduler", Value, "AE", Done),
        option("-b", "--sched-flags", Value, "AE", Done),
        option("-p", "--persistent", Perhaps, "AE", Done),
        option("-M", "--netmask", Value, "AE", Done),
        option("--pe", "--pe", Value, "AE", Refused("Flowpin looks at no SIP dialogues; -p, which goes by the client's address, comes nearest")),
        option("-o", "--ops", Nothing, "AE", Refused("datagrams of one flow stay with one backend. \"flowpin service set NAME --timeout-udp 1s\" is the shortest time that they do")),
        option("-r", "--real-server", Value, "aed", Done),
        grouped(FORWARD, "-g", "--gatewaying", Nothing, "ae", Done),
        grouped(FORWARD, "-i", "--ipip", Nothing, "ae", Done),
        grouped(FORWARD, "-m", "--masquerading", Nothing, "ae", Done),
        option("--tun-type", "--tun-type", Value, "ae", Done),
        option("--tun-port", "--tun-port", Value, "ae", TUNNEL),
        option("--tun-nocsum", "--tun-nocsum", Nothing, "ae", TUNNEL),
        option("--tun-csum", "--tun-csum", Nothing, "ae", TUNNEL),
        option("--tun-remcsum", "--tun-remcsum", Nothing, "ae", TUNNEL),
        option("-w", "--weight", Value, "ae", Done),
        option("-x", "--u-threshold", Value, "ae", Done),
        option("-y", "--l-threshold", Value, "ae", Done),
        grouped("output", "-c", "--connection", Nothing, "L", Done),
        grouped("output", "--timeout", "--timeout", Nothing, "L", Done),
        grouped("output", "--daemon", "--daemon", Nothing, "L", SYNC),
        grouped("output", "--stats", "--stats", Nothing, "L", Done),
        grouped("output", "--rate", "--rate", Nothing, "L", Done),
        grouped("output", "--thresholds", "--thresholds", Nothing, "L", Done),
        grouped("output", "--persistent-conn", "--persistent-conn", Nothing, "L", Done),
        grouped("output", "--tun-info", "--tun-info", Nothing, "L", Done),
        option("--sort", "--sort", Nothing, "*", Always),
        option("--nosort", "--nosort", Nothing, "LS", Done),
        option("-n", "--numeric", Nothing, "LS", Always),
        option("--exact", "--exact", Nothing, "L", Done),
        option("--syncid", "--syncid", Value, "y", SYNC),
        option("--sync-maxlen", "--sync-maxlen", Value, "y", SYNC),
        option("--mcast-interface", "--mcast-interface", Value, "y", SYNC),
        option("--mcast-group", "--mcast-group", Value, "y", SYNC),
        option("--mcast-port", "--mcast-port", Value, "y", SYNC),
        option("--mcast-ttl", "--mcast-ttl", Value, "y", SYNC),
    ]
};

/// A command by any of its names.
pub fn verb_named(word: &str) -> Option<&'static Verb> {
    let word = if word == "-l" { "-L" } else { word };
    COMMANDS.iter().find(|verb| verb.name == word || verb.long == word)
}

/// An option by any of its names.
pub fn option_named(word: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == word || option.long == word)
}

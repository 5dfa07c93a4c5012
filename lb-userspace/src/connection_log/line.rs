//! A line: what `docs/logging.md` says of each field.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use humantime::format_rfc3339_millis;
use lb_common::abi::{BackendId, Proto, What};
use serde::{Serialize, Serializer};

use super::queue::{Entry, Record};
use crate::datapath::events::socket;

/// What lines say that records don't.
pub struct Around<'a> {
    /// The node's name.
    pub node: Option<&'a str>,
    /// Open connections of a backend.
    pub active: &'a dyn Fn(BackendId) -> u32,
}

/// A time, in UTC, with milliseconds.
struct Stamp(SystemTime);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A node whose clock isn't set yet may be at the very beginning.
        serializer.collect_str(&format_rfc3339_millis(self.0.max(SystemTime::UNIX_EPOCH)))
    }
}

#[derive(Serialize)]
struct Ended<'a> {
    time: Stamp,
    accepted: Stamp,
    client_ip: IpAddr,
    client_port: u16,
    frontend: SocketAddr,
    service: &'a str,
    backend: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_host: Option<&'a str>,
    protocol: &'static str,
    duration_ms: u64,
    bytes_in: u64,
    bytes_out: u64,
    termination: &'static str,
    backend_connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

#[derive(Serialize)]
struct Lost<'a> {
    time: Stamp,
    lost: u64,
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

/// How a connection has ended, as in the log and among the events.
pub const fn termination(what: What) -> &'static str {
    match what {
        What::FINISHED => "finished",
        What::CLIENT_RESET => "client_reset",
        What::BACKEND_RESET => "backend_reset",
        What::CLOSED => "closed",
        What::REMOVED => "expired",
        _ => "",
    }
}

/// `tcp` or `udp`.
pub const fn protocol(proto: Proto) -> &'static str {
    if proto.0 == Proto::TCP.0 { "tcp" } else { "udp" }
}

/// The client of a record.
pub fn client(record: &Record) -> SocketAddr {
    socket(&record.event, record.event.client, record.event.client_port)
}

/// Its backend.
pub fn backend(record: &Record) -> SocketAddr {
    socket(&record.event, record.event.target, record.event.target_port)
}

/// Writes an entry's line, its end included.
pub fn write(text: &mut Vec<u8>, entry: &Entry, around: &Around<'_>) {
    // To memory, and nothing in it that JSON doesn't have.
    let _ = match entry {
        Entry::Ended(record) => serde_json::to_writer(&mut *text, &ended(record, around)),
        Entry::Lost { since, records, why } => {
            let lost = Lost { time: Stamp(*since), lost: *records, why: why.name(), node: around.node };
            serde_json::to_writer(&mut *text, &lost)
        }
    };
    text.push(b'\n');
}

fn ended<'a>(record: &'a Record, around: &Around<'a>) -> Ended<'a> {
    let (event, client) = (&record.event, client(record));
    let accepted = record.ended.checked_sub(Duration::from_millis(record.open));
    Ended {
        time: Stamp(record.ended),
        accepted: Stamp(accepted.unwrap_or(SystemTime::UNIX_EPOCH)),
        client_ip: client.ip(),
        client_port: client.port(),
        frontend: socket(event, event.vip, event.vip_port),
        service: &record.service,
        backend: backend(record),
        backend_host: record.host.as_deref(),
        protocol: protocol(event.proto),
        duration_ms: record.open,
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        termination: termination(event.what),
        backend_connections: (around.active)(event.backend),
        node: around.node,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{Addr as _, Addr4, Addr6, Event, PortBe};

    use super::*;
    use crate::connection_log::queue::Why;

    fn text(entry: Entry, node: Option<&str>) -> String {
        let mut text = Vec::new();
        write(&mut text, &entry, &Around { node, active: &|id| id.0 });
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn lines_have_every_field() {
        let at = |text| humantime::parse_rfc3339(text).expect("a time");
        let mut event = Event {
            bytes_in: 1234,
            bytes_out: 56_789,
            client: Addr4::from(std::net::Ipv4Addr::new(192, 0, 2, 7)).words(),
            vip: Addr4::from(std::net::Ipv4Addr::new(10, 96, 0, 10)).words(),
            target: Addr4::from(std::net::Ipv4Addr::new(10, 0, 1, 11)).words(),
            backend: BackendId(17),
            client_port: PortBe::new(40_001),
            vip_port: PortBe::new(443),
            target_port: PortBe::new(8443),
            proto: Proto::TCP,
            what: What::BACKEND_RESET,
            ..Event::default()
        };
        let record = |event| Record {
            event,
            service: "we\"b".into(),
            host: Some("db.example.com".into()),
            ended: at("2026-11-28T22:09:24.123Z"),
            open: 61_024,
        };
        assert_eq!(
            text(Entry::Ended(record(event)), Some("node-1")),
            concat!(
                r#"{"time":"2026-11-28T22:09:24.123Z","accepted":"2026-11-28T22:08:23.099Z","client_ip":"192.0.2.7","#,
                r#""client_port":40001,"frontend":"10.96.0.10:443","service":"we\"b","backend":"10.0.1.11:8443","#,
                r#""backend_host":"db.example.com","protocol":"tcp","duration_ms":61024,"bytes_in":1234,"#,
                r#""bytes_out":56789,"termination":"backend_reset","backend_connections":17,"node":"node-1"}"#,
                "\n"
            )
        );
        event.v6 = 1;
        event.client = Addr6::from("2001:db8::7".parse::<std::net::Ipv6Addr>().expect("an address")).words();
        (event.proto, event.what, event.backend) = (Proto::UDP, What::REMOVED, BackendId(18));
        let nobodys = Record { service: "".into(), host: None, ..record(event) };
        let said = text(Entry::Ended(nobodys), None);
        for part in [
            r#""client_ip":"2001:db8::7","#,
            r#""frontend":"["#,
            r#""service":"","#,
            r#""protocol":"udp","#,
            r#""termination":"expired","#,
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("node") && !said.contains("backend_host"), "{said}");
        let lost = Entry::Lost { since: at("2026-11-28T22:09:24Z"), records: 12, why: Why::Queue };
        let line = r#"{"time":"2026-11-28T22:09:24.000Z","lost":12,"why":"queue_full","node":"n"}"#;
        assert_eq!(text(lost, Some("n")), format!("{line}\n"));
    }

    #[test]
    fn every_end_has_a_word() {
        let ends = [What::FINISHED, What::CLIENT_RESET, What::BACKEND_RESET, What::CLOSED, What::REMOVED];
        assert!(ends.iter().all(|end| !termination(*end).is_empty()));
        assert_eq!(termination(What::OPENED), "");
    }
}

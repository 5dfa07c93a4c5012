//! The metrics page. Names are fixed by dashboards that use them.
//!
//! What there is a line of for each backend or service is written by hand, a piece of the page at a time: with 10,000 services of ten
//! backends these are more than a million lines. The rest is written by `prometheus_client`.

pub mod families;
pub mod node;
pub mod rows;
mod sharing;

use std::sync::Arc;

use families::{BACKENDS, DURATIONS, SERVICES};
use lb_common::abi::DurationHistogram;
use rows::{Backend, Service};

pub use self::{node::Node, rows::Rows};
use super::Snapshot;
use crate::datapath::Clock;

/// Bytes of a piece of the page, more or less.
const PIECE: usize = 64 << 10;

/// What a page is written from.
#[derive(Clone, Default)]
pub struct Figures {
    /// Services and backends.
    pub rows: Arc<Rows>,
    /// Their counts.
    pub snapshot: Arc<Snapshot>,
    /// How long connections were open, by the service's id.
    pub durations: Arc<Vec<DurationHistogram>>,
    /// The node's own.
    pub node: Node,
}

/// A page, as its pieces, one after the other.
pub struct Page {
    figures: Figures,
    clock: Clock,
    /// Has the end been written?
    ended: bool,
    /// How many families are written.
    family: usize,
    /// How many lines, or groups of lines, of the next one.
    row: usize,
}

/// Metrics of one name.
pub struct Family<W> {
    name: &'static str,
    /// What names of its lines end with.
    suffix: &'static str,
    help: &'static str,
    kind: &'static str,
    /// Writes what the family says of one row.
    write: W,
}

/// Lines of the page. There are more than a million of them, so what lines about one thing share is put together once.
pub struct Lines<'a> {
    out: &'a mut Vec<u8>,
    /// A line: what is shared, and what is put behind that for one of them.
    line: Vec<u8>,
    /// How long what is shared is.
    shared: usize,
}

/// What comes between a line's first labels and its number; padded, since a copy of fixed length takes one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    padded: [u8; Self::LONGEST],
    len: usize,
}

impl Tail {
    const LONGEST: usize = 32;

    /// This one, of at most 32 bytes: a longer one doesn't compile.
    const fn new(text: &str) -> Self {
        let mut padded = [0; Self::LONGEST];
        padded.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
        Self { padded, len: text.len() }
    }
}

/// No further label.
const PLAIN: Tail = Tail::new("} ");

impl<'a> Lines<'a> {
    const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, line: Vec::new(), shared: 0 }
    }

    /// Goes on with lines that begin with `head`, as `flowpin_backend_bytes_total{`, and these labels.
    fn about(&mut self, head: &str, labels: &str) {
        self.line.clear();
        self.line.extend_from_slice(head.as_bytes());
        self.line.extend_from_slice(labels.as_bytes());
        self.shared = self.line.len();
    }

    /// A whole number.
    fn whole(&mut self, tail: &Tail, value: u64) {
        self.begin(tail);
        // Most are.
        if value == 0 {
            self.line.extend_from_slice(b"0\n");
        } else {
            self.line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            self.line.push(b'\n');
        }
        self.out.extend_from_slice(&self.line);
    }

    /// Any number.
    fn real(&mut self, tail: &Tail, value: f64) {
        self.begin(tail);
        self.line.extend_from_slice(format!("{value:?}\n").as_bytes());
        self.out.extend_from_slice(&self.line);
    }

    fn begin(&mut self, tail: &Tail) {
        self.line.truncate(self.shared);
        self.line.extend_from_slice(&tail.padded);
        self.line.truncate(self.shared + tail.len);
    }
}

impl Page {
    /// Of what was read at one time.
    pub const fn new(figures: Figures, clock: Clock) -> Self {
        Self { figures, clock, ended: false, family: 0, row: 0 }
    }

    /// Goes on with a family that has `count` rows, until the piece is long enough. `write`: the row at this place, given
    /// what the family's lines begin with.
    fn go_on<W>(
        &mut self,
        out: &mut Vec<u8>,
        family: &Family<W>,
        count: usize,
        mut write: impl FnMut(usize, &mut Lines<'_>, &str),
    ) {
        let Family { name, suffix, help, kind, .. } = family;
        if self.row == 0 {
            out.extend_from_slice(format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n").as_bytes());
        }
        let head = format!("{name}{suffix}{{");
        let mut lines = Lines::new(out);
        while self.row < count && lines.out.len() < PIECE {
            write(self.row, &mut lines, &head);
            self.row += 1;
        }
        if self.row >= count {
            (self.family, self.row) = (self.family + 1, 0);
        }
    }

    fn durations(&mut self, out: &mut Vec<u8>) {
        let (Figures { rows, durations, .. }, clock) = (self.figures.clone(), self.clock);
        self.go_on(out, &DURATIONS, rows.in_force.len(), |row, lines, _| {
            let (id, labels) = rows.in_force[row];
            // One that came after they were read has none yet.
            if let Some(histogram) = durations.get(id as usize) {
                families::write_durations(lines, rows.text(labels), histogram, clock);
            }
        });
    }
}

impl Iterator for Page {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        let (rows, snapshot) = (self.figures.rows.clone(), self.figures.snapshot.clone());
        while out.len() < PIECE && !self.ended {
            let at = self.family;
            if let Some(family) = BACKENDS.get(at) {
                self.go_on(&mut out, family, rows.backends.len(), |row, lines, head| {
                    let backend = Backend { row: &rows.backends[row], snapshot: &snapshot };
                    if backend.is_shown() {
                        lines.about(head, rows.text(backend.row.labels));
                        (family.write)(&backend, lines);
                    }
                });
            } else if let Some(family) = SERVICES.get(at - BACKENDS.len()) {
                self.go_on(&mut out, family, rows.services.len(), |row, lines, head| {
                    let service = Service { rows: &rows, row: &rows.services[row], snapshot: &snapshot };
                    lines.about(head, rows.text(service.row.labels));
                    (family.write)(&service, lines);
                });
            } else if at == BACKENDS.len() + SERVICES.len() {
                self.durations(&mut out);
            } else {
                // The node's own come last, with the end of the page.
                out.extend_from_slice(self.figures.node.clone().render().as_bytes());
                self.ended = true;
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::BackendId;

    use super::*;
    use crate::{
        model::{AdminState, BackendSpec, Origin, service::make_backend},
        observe::now::Known,
    };

    fn draining(address: &str) -> BackendSpec {
        let mut spec = make_backend("s", address, None, None, false, Origin::File).expect("a backend");
        spec.admin = AdminState::Draining { since: std::time::Duration::ZERO, deadline: None };
        spec
    }

    /// Every other service has connections.
    fn page(services: u16) -> Page {
        let mut rows = Rows::default();
        let mut active = Vec::new();
        let (one, other) = (draining("10.0.0.1:80"), draining("10.0.0.2:80"));
        let (one, other) = (("10.0.0.1:80", &one), ("10.0.0.2:80", &other));
        for i in 0..services {
            let name = format!("s{i}");
            let backends = (0..).zip([one, other]).map(|(slot, (name, spec))| {
                let id = Some(BackendId::new(i.into(), slot));
                Known {
                    name,
                    spec: Some(spec),
                    id,
                    healthy: true,
                    one_way: false,
                    failures: 0,
                    why: None,
                    from: None,
                    removed: None,
                }
            });
            rows.add(&name, backends, false);
            if i % 2 == 0 {
                active.push((BackendId::new(i.into(), 0), 7));
            }
            let labels = rows.services[usize::from(i)].labels;
            rows.in_force.push((i.into(), labels));
        }
        let mut histogram = DurationHistogram { sum_jiffies: 500, ..Default::default() };
        (histogram.buckets[0], histogram.buckets[2]) = (1, 2);
        let figures = Figures {
            rows: Arc::new(rows),
            snapshot: Arc::new(Snapshot::with_active(&active)),
            durations: Arc::new(vec![histogram; services.into()]),
            node: Node::default(),
        };
        Page::new(figures, Clock::at(250))
    }

    fn text(page: Page) -> String {
        page.map(|piece| String::from_utf8(piece).expect("text")).collect()
    }

    #[test]
    fn a_page_says_each_thing_once_and_ends() {
        let text = text(page(1));
        for line in [
            "# HELP flowpin_backend_active_connections Open connections pinned to the backend.",
            "# TYPE flowpin_backend_active_connections gauge",
            "flowpin_backend_active_connections{service=\"s0\",backend=\"10.0.0.1:80\"} 7",
            "# TYPE flowpin_backend_bytes counter",
            "flowpin_backend_bytes_total{service=\"s0\",backend=\"10.0.0.2:80\",direction=\"out\"} 0",
            "flowpin_backend_state{service=\"s0\",backend=\"10.0.0.1:80\",state=\"draining\"} 1",
            "flowpin_backend_state{service=\"s0\",backend=\"10.0.0.2:80\",state=\"drained\"} 1",
            "# TYPE flowpin_service_imbalance gauge",
            "# TYPE flowpin_connection_duration_seconds histogram",
            "flowpin_connection_duration_seconds_sum{service=\"s0\"} 2.0",
            "flowpin_connection_duration_seconds_count{service=\"s0\"} 3",
            "flowpin_connection_duration_seconds_bucket{service=\"s0\",le=\"0.064\"} 1",
            "flowpin_connection_duration_seconds_bucket{service=\"s0\",le=\"0.256\"} 3",
            "flowpin_connection_duration_seconds_bucket{service=\"s0\",le=\"+Inf\"} 3",
            "flowpin_conntrack_entries{} 0",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
        assert!(!text.contains("flowpin_backend_clients{"), "no service has affinity");
    }

    #[test]
    fn a_long_page_comes_in_pieces_that_are_the_same_page() {
        let pieces: Vec<Vec<u8>> = page(2_000).collect();
        assert!(pieces.len() > 10);
        assert!(pieces.iter().all(|piece| piece.len() < 2 * PIECE));
        let text = text(page(2_000));
        assert_eq!(text.len(), pieces.iter().map(Vec::len).sum::<usize>());
        assert_eq!(text.lines().filter(|l| l.starts_with("flowpin_backend_active")).count(), 4_000);
        assert_eq!(text.matches("# HELP flowpin_backend_healthy ").count(), 1);
    }
}

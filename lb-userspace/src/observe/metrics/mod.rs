//! The metrics page. Names are fixed by dashboards that use them.
//!
//! What there is a line of for each backend or service is written by hand, a piece of the page at a time: with 10,000 services of ten
//! backends these are more than a million lines. The rest is written by `prometheus_client`.

pub mod families;
pub mod node;
pub mod rows;

use std::sync::Arc;

use families::{BACKENDS, SERVICES};

pub use self::{
    node::Node,
    rows::{BackendRow, DurationRow, Rows, ServiceRow},
};
use crate::datapath::Clock;

/// Bytes of a piece of the page, more or less.
const PIECE: usize = 64 << 10;

/// A page, as its pieces, one after the other.
pub struct Page {
    rows: Arc<Rows>,
    durations: Arc<Vec<DurationRow>>,
    clock: Clock,
    node: Option<Node>,
    /// How many families are written.
    family: usize,
    /// How many lines, or groups of lines, of the next one.
    row: usize,
}

/// What a family says of one row.
type Write<T> = fn(&T, &mut Lines<'_>);

/// Metrics of one name.
pub struct Family<T> {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    write: Write<T>,
}

/// Lines of one family about one thing.
pub struct Lines<'a> {
    out: &'a mut Vec<u8>,
    name: &'static str,
    labels: &'a str,
}

impl Lines<'_> {
    fn begin(&mut self, suffix: &str, further: &str) {
        let parts = [self.name, suffix, "{", self.labels, further, "} "];
        parts.into_iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }

    /// What a bucket holds; `bound`: its label, with a comma after it.
    fn bucket(&mut self, bound: &str, value: u64) {
        let parts = [self.name, "_bucket{", bound, self.labels, "} "];
        parts.into_iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.push(b'\n');
    }

    /// A whole number. `suffix`: of the name; `further`: labels, with a comma before each.
    fn whole(&mut self, suffix: &str, further: &str, value: u64) {
        self.begin(suffix, further);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.push(b'\n');
    }

    /// Any number.
    fn real(&mut self, suffix: &str, further: &str, value: f64) {
        self.begin(suffix, further);
        self.out.extend_from_slice(format!("{value:?}\n").as_bytes());
    }
}

impl Page {
    /// Of what was read at one time.
    pub fn new(rows: Arc<Rows>, durations: Arc<Vec<DurationRow>>, clock: Clock, node: Node) -> Self {
        Self { rows, durations, clock, node: Some(node), family: 0, row: 0 }
    }

    /// Goes on with a family that has `count` rows, until the piece is long enough. `write`: the row at this place.
    fn go_on<T>(
        &mut self,
        out: &mut Vec<u8>,
        family: &Family<T>,
        count: usize,
        mut write: impl FnMut(usize, &mut Vec<u8>),
    ) {
        if self.row == 0 {
            let Family { name, help, kind, .. } = family;
            out.extend_from_slice(format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n").as_bytes());
        }
        while self.row < count && out.len() < PIECE {
            write(self.row, out);
            self.row += 1;
        }
        if self.row >= count {
            (self.family, self.row) = (self.family + 1, 0);
        }
    }

    fn durations(&mut self, out: &mut Vec<u8>) {
        let (durations, clock) = (self.durations.clone(), self.clock);
        let family = families::durations();
        self.go_on(out, &family, durations.len(), |row, out| {
            let DurationRow { labels, histogram } = &durations[row];
            families::write_durations(&mut Lines { out, name: family.name, labels }, histogram, clock);
        });
    }
}

impl Iterator for Page {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        let rows = self.rows.clone();
        while out.len() < PIECE {
            let at = self.family;
            if let Some(family) = BACKENDS.get(at) {
                self.go_on(&mut out, family, rows.backends.len(), |row, out| {
                    let row = &rows.backends[row];
                    (family.write)(row, &mut Lines { out, name: family.name, labels: rows.text(row.labels) });
                });
            } else if let Some(family) = SERVICES.get(at - BACKENDS.len()) {
                self.go_on(&mut out, family, rows.services.len(), |row, out| {
                    let row = &rows.services[row];
                    (family.write)(row, &mut Lines { out, name: family.name, labels: rows.text(row.labels) });
                });
            } else if at == BACKENDS.len() + SERVICES.len() {
                self.durations(&mut out);
            } else {
                // The node's own come last, with the end of the page.
                match self.node.take() {
                    Some(node) => out.extend_from_slice(node.render().as_bytes()),
                    None => break,
                }
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::DurationHistogram;

    use super::*;

    fn page(services: usize) -> Page {
        let mut rows = Rows::default();
        let mut durations = Vec::new();
        for i in 0..services {
            let name = format!("s{i}");
            rows.add_service(&name, (i % 2 == 0).then_some(1.5));
            for address in ["10.0.0.1:80", "10.0.0.2:80"] {
                let row = BackendRow { state: "draining", active: 7, healthy: true, ..BackendRow::default() };
                rows.add_backend(&name, address, row);
            }
            let mut histogram = DurationHistogram { sum_jiffies: 500, ..Default::default() };
            (histogram.buckets[0], histogram.buckets[2]) = (1, 2);
            durations.push(DurationRow::new(&name, histogram));
        }
        Page::new(Arc::new(rows), Arc::new(durations), Clock::at(250), Node::default())
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
            "flowpin_service_imbalance{service=\"s0\"} 1.5",
            "# TYPE flowpin_connection_duration_seconds histogram",
            "flowpin_connection_duration_seconds_sum{service=\"s0\"} 2.0",
            "flowpin_connection_duration_seconds_count{service=\"s0\"} 3",
            "flowpin_connection_duration_seconds_bucket{le=\"0.064\",service=\"s0\"} 1",
            "flowpin_connection_duration_seconds_bucket{le=\"0.256\",service=\"s0\"} 3",
            "flowpin_connection_duration_seconds_bucket{le=\"+Inf\",service=\"s0\"} 3",
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
        assert_eq!(text.lines().filter(|l| l.starts_with("flowpin_service_imbalance")).count(), 1_000);
    }
}

//! `flowpin top`: a live view of services and backends.

use std::{
    collections::HashMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use ratatui::{
    Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style, Stylize as _},
    text::Line,
    widgets::{Cell, Row, Table, TableState},
};

use super::{
    Context, Failure,
    output::{bytes, count, or_dash},
    tables,
};
use crate::api::types::{BackendView, ClusterView, CountView, ServiceView, SharedView, StatusView};

/// Watch services, backends, connections, rates and imbalance live
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  flowpin top --interval 5

Keys: arrows, page up and down to scroll, q to quit. IMBALANCE is the most open connections of a backend in use, for its weight, over the \
mean of all: 1.00 is even. A backend that takes no new connections is dimmed.")]
pub struct Args {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Counters of a backend at the look before.
#[derive(Clone, Copy)]
struct Before {
    total: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Connections over all nodes, by service and backend, as far as they are known.
type Everywhere = HashMap<(String, String), u64>;

/// What is shown.
struct View {
    status: StatusView,
    /// By service and backend, all nodes' connections; `None`: none are shared.
    everywhere: Option<Everywhere>,
    services: Vec<ServiceView>,
    /// Since the look before, in seconds; 0: there was none.
    passed: f64,
    before: HashMap<(String, String), Before>,
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if !std::io::stdout().is_terminal() {
            return Err(Failure::Said("top needs a terminal; for scripts use: flowpin stats -o json".into()));
        }
        let mut view = look(context, None).await?;
        // After the first look: an agent that can't be reached is said on an ordinary screen.
        let mut terminal = ratatui::try_init()?;
        let outcome = self.watch(context, &mut terminal, &mut view).await;
        ratatui::restore();
        outcome
    }

    async fn watch(
        &self,
        context: &Context,
        terminal: &mut ratatui::DefaultTerminal,
        view: &mut View,
    ) -> Result<(), Failure> {
        let mut state = TableState::default().with_selected(0);
        loop {
            terminal.draw(|frame| draw(frame, view, &mut state))?;
            let due = Instant::now() + Duration::from_secs(self.interval);
            loop {
                let left = due.saturating_duration_since(Instant::now());
                let asked = tokio::task::spawn_blocking(move || {
                    Ok::<_, std::io::Error>(if event::poll(left)? { Some(event::read()?) } else { None })
                });
                let asked = asked.await.map_err(|e| Failure::Said(e.to_string()))??;
                match asked {
                    None => break,
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                        KeyCode::Down => state.scroll_down_by(1),
                        KeyCode::Up => state.scroll_up_by(1),
                        KeyCode::PageDown => state.scroll_down_by(20),
                        KeyCode::PageUp => state.scroll_up_by(20),
                        _ => {}
                    },
                    Some(_) => {}
                }
                terminal.draw(|frame| draw(frame, view, &mut state))?;
            }
            *view = look(context, Some((view, self.interval as f64))).await?;
        }
    }
}

async fn look(context: &Context, last: Option<(&View, f64)>) -> Result<View, Failure> {
    let (status, services) = (context.client.status().await?, context.client.services().await?);
    // An agent that shares nothing says so: then there is no such column.
    let everywhere = context.client.cluster().await.ok().map(everywhere);
    let (mut before, mut passed) = (HashMap::new(), 0.0);
    if let Some((last, interval)) = last {
        passed = interval;
        for (service, backend) in last.services.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b))) {
            let Before { total, bytes_in, bytes_out } = Before {
                total: backend.total_connections,
                bytes_in: backend.bytes_in,
                bytes_out: backend.bytes_out,
            };
            let key = (service.name.clone(), backend.address.clone());
            before.insert(key, Before { total, bytes_in, bytes_out });
        }
    }
    Ok(View { status, everywhere, services, passed, before })
}

fn everywhere(view: ClusterView) -> Everywhere {
    let all = |service: SharedView| {
        let of =
            move |it: CountView| Some(((service.name.clone(), it.address), it.others? + u64::from(it.own)));
        service.backends.into_iter().filter_map(of)
    };
    view.services.into_iter().flat_map(all).collect()
}

fn draw(frame: &mut Frame<'_>, view: &View, state: &mut TableState) {
    let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(1)]).areas(frame.area());
    let status = &view.status;
    let summary = format!(
        "flowpin {}  {}  flows {} of {}  clients {} of {}  drift {}",
        status.version,
        status.state,
        count(status.conntrack_entries),
        count(status.conntrack_capacity),
        count(status.affinity_entries),
        count(status.affinity_capacity),
        status.accounting_drift,
    );
    let colour = if status.state == "ok" { Color::Green } else { Color::Red };
    frame.render_widget(Line::from(summary).fg(colour), head);
    let rows = view.services.iter().flat_map(|service| {
        let sum = service
            .backends
            .iter()
            .map(|b| Figures::of(view, service, b))
            .fold(Figures::default(), Figures::plus);
        let imbalance = service.imbalance.map_or_else(|| "-".into(), |i| format!("{i:.2}"));
        let total = sum.row(
            view,
            [
                service.name.clone(),
                String::new(),
                format!("{} {}", tables::vip(service), service.ports.join(",")),
                imbalance,
            ],
        );
        let backends = service.backends.iter().map(|b| {
            let state = tables::standing(b).into();
            let out = b.state != "active" || !b.healthy;
            let left = [String::new(), b.address.clone(), state, String::new()];
            let row = Figures::of(view, service, b).row(view, left);
            if out { row.style(Style::new().add_modifier(Modifier::DIM)) } else { row }
        });
        std::iter::once(total.style(Style::new().add_modifier(Modifier::BOLD)))
            .chain(backends)
            .collect::<Vec<_>>()
    });
    let columns = [
        ("SERVICE", 18),
        ("BACKEND", 26),
        ("WHERE, STATE", 22),
        ("IMBALANCE", 10),
        ("ACTIVE", 10),
        (ALL_NODES, 10),
        ("NEW/S", 10),
        ("IN/S", 12),
        ("OUT/S", 12),
    ];
    let shown = columns.into_iter().filter(|(heading, _)| view.everywhere.is_some() || *heading != ALL_NODES);
    let (headings, widths): (Vec<_>, Vec<_>) =
        shown.map(|(heading, width)| (heading, Constraint::Max(width))).unzip();
    let table = Table::new(rows, widths)
        .header(Row::new(headings).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::UNDERLINED));
    frame.render_stateful_widget(table, body, state);
}

/// The column that is only there if nodes share.
const ALL_NODES: &str = "ALL NODES";

/// What a row says in numbers, a second.
#[derive(Clone, Copy, Default)]
struct Figures {
    active: u64,
    /// Of all nodes, as far as it is known.
    everywhere: Option<u64>,
    opened: f64,
    sent: f64,
    back: f64,
}

impl Figures {
    fn of(view: &View, service: &ServiceView, backend: &BackendView) -> Self {
        let before = view.before.get(&(service.name.clone(), backend.address.clone()));
        let rate = |now: u64, then: Option<u64>| match then {
            Some(then) if view.passed > 0.0 => now.saturating_sub(then) as f64 / view.passed,
            _ => 0.0,
        };
        Self {
            active: backend.active_connections,
            everywhere: view
                .everywhere
                .as_ref()
                .and_then(|all| all.get(&(service.name.clone(), backend.address.clone())).copied()),
            opened: rate(backend.total_connections, before.map(|b| b.total)),
            sent: rate(backend.bytes_in, before.map(|b| b.bytes_in)),
            back: rate(backend.bytes_out, before.map(|b| b.bytes_out)),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            active: self.active + other.active,
            everywhere: match (self.everywhere, other.everywhere) {
                (Some(mine), Some(others)) => Some(mine + others),
                (mine, others) => mine.or(others),
            },
            opened: self.opened + other.opened,
            sent: self.sent + other.sent,
            back: self.back + other.back,
        }
    }

    fn row(self, view: &View, left: [String; 4]) -> Row<'static> {
        let everywhere = view.everywhere.is_some().then(|| or_dash(self.everywhere.map(count)));
        let rates = [format!("{:.0}", self.opened), bytes(self.sent as u64), bytes(self.back as u64)];
        let cells = left.into_iter().chain([count(self.active)]).chain(everywhere).chain(rates);
        Row::new(cells.map(Cell::from))
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn backend(address: &str, active: u64, total: u64) -> BackendView {
        let text = format!(
            r#"{{"address":"{address}","weight":1,"max_connections":null,"state":"active","healthy":true,"origin":"cli",
            "active_connections":{active},"total_connections":{total},"packets_in":0,"bytes_in":0,"packets_out":0,"bytes_out":{}}}"#,
            total * 1024
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn rates_are_differences_and_everything_is_shown() {
        let backends = vec![backend("10.0.0.1", 30, 200), backend("10.0.0.2", 10, 100)];
        let service = ServiceView {
            name: "app".into(),
            vip: "10.96.0.10".parse().unwrap(),
            vip_except: Default::default(),
            source_ranges: Vec::new(),
            deny_ranges: Vec::new(),
            ports: vec!["80/tcp".into()],
            frontends: Vec::new(),
            stray: "reset".into(),
            algorithm: "least-connections".into(),
            origin: "cli".into(),
            active_connections: 0,
            imbalance: Some(1.5),
            warnings: Vec::new(),
            short_of_quorum: None,
            rejected: Vec::new(),
            declared: Default::default(),
            backends,
        };
        let status = serde_json::from_str(
            r#"{"state":"ok","version":"0.1.0","kernel":"6.1","uptime_seconds":1.0,"interfaces":[],"services":1,"backends":2,
            "conntrack_entries":40,"conntrack_capacity":1048576,"accounting_drift":0,"sweeps":1,"generation":1,"problems":[]}"#,
        )
        .unwrap();
        let before = [("10.0.0.1", 180), ("10.0.0.2", 100)].map(|(address, total)| {
            (("app".to_string(), address.to_string()), Before { total, bytes_in: 0, bytes_out: total * 1024 })
        });
        let mut view =
            View { status, everywhere: None, services: vec![service], passed: 2.0, before: before.into() };
        let squeezed = squeezed(&view);
        assert!(squeezed[0].starts_with("flowpin 0.1.0 ok flows 40 of 1,048,576"), "{squeezed:?}");
        assert_eq!(squeezed[3], "app 10.96.0.10 80/tcp 1.50 40 10 0 B 10.00 KiB");
        assert_eq!(squeezed[4], "10.0.0.1 active 30 10 0 B 10.00 KiB");
        assert_eq!(squeezed[5], "10.0.0.2 active 10 0 0 B 0 B");

        // Where nodes share, there is a column for all of them.
        view.everywhere = Some([(("app".to_string(), "10.0.0.1".to_string()), 70)].into());
        let squeezed = self::squeezed(&view);
        assert!(squeezed[2].contains("ACTIVE ALL NODES NEW/S"), "{squeezed:?}");
        assert_eq!(squeezed[3], "app 10.96.0.10 80/tcp 1.50 40 70 10 0 B 10.00 KiB");
        assert_eq!(squeezed[5], "10.0.0.2 active 10 - 0 0 B 0 B");
    }

    /// The lines on the screen, blanks as one.
    fn squeezed(view: &View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(140, 6)).unwrap();
        terminal.draw(|frame| draw(frame, view, &mut TableState::default())).unwrap();
        let shown = terminal.backend().to_string();
        let squeeze = |l: &str| l.trim_matches('"').split_whitespace().collect::<Vec<_>>().join(" ");
        shown.lines().map(squeeze).collect()
    }
}

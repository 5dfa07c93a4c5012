//! Rules of the host that get in the way, looked for now and then: they change without a word to us.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use rtnetlink::Handle;
use tokio::{
    sync::{Notify, watch},
    time::MissedTickBehavior,
};

use super::{netlink::Netlink, seen::Seen, shared::Shared};
use crate::{
    api::types::{InterfaceView, WarningView},
    datapath::{DatapathError, diag, interfaces, routes},
    host::{
        Found, Hint, Setup,
        hints::{Towards, Way, hints},
    },
    model::{Desired, ForwardKind, ServiceSpec, frontend::Frontend},
    source::{Config, Variant},
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(60);
/// Backends whose routes are asked for, at most.
const BACKENDS: usize = 1_024;
/// Somewhere else: addresses that nobody has (RFC 5737, RFC 3849), so that the route there is the default one.
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Looks now, whenever `again` says so, and every so often, until told to stop.
pub async fn run(
    shared: Arc<Shared>,
    netlink: Netlink,
    again: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = again.notified() => {}
            _ = tick.tick() => {}
        }
        if let Err(e) = look(&shared, &netlink).await {
            tracing::debug!("rules of the host aren't known: {e}");
        }
    }
}

async fn look(shared: &Shared, netlink: &Netlink) -> Result<(), DatapathError> {
    let setup = setup(shared, &*netlink.get().await).await?;
    // What they list matters only there.
    let concerned = !setup.arrival.is_empty() || !setup.by_xdp.is_empty();
    let found = if concerned { Found::look().await } else { Found::default() };
    let warnings: Vec<WarningView> = hints(&setup, &found).into_iter().map(view).collect();
    let mut state = shared.write();
    for warning in warnings.iter().filter(|w| !state.warnings.contains(w)) {
        tracing::warn!("{}: {}; {}", warning.about, warning.text, warning.remedy);
    }
    state.warnings = warnings;
    Ok(())
}

fn view(hint: Hint) -> WarningView {
    WarningView { about: hint.about.into(), text: hint.text, remedy: hint.remedy }
}

/// Are answers translated there as they come in?
const fn on_arrival(interface: &InterfaceView) -> bool {
    interface.fast || interface.reply_on_arrival
}

/// Routes here by which answers would go past an agent with this configuration, and `desired` in force. None if the
/// kernel doesn't say.
pub async fn routes_past(config: &Config, desired: &Desired) -> Vec<Hint> {
    let Ok(netlink) = interfaces::connect() else { return Vec::new() };
    let seen = Seen::look(&netlink).await;
    let mut setup = Setup::default();
    for (interface, rule) in seen.ruled(config) {
        setup.matched.insert(interface.name.clone());
        if rule.variant() != Variant::Egress {
            setup.arrival.insert(interface.name.clone());
        }
    }
    setup.ways = Wanted::of(desired).ways(&netlink).await.unwrap_or_default();
    hints(&setup, &Found::default())
}

/// A backend to ask for.
struct Backend {
    service: String,
    name: String,
    address: IpAddr,
    snat: bool,
}

/// To whom ways are asked for.
struct Wanted {
    /// IP versions of clients from everywhere.
    families: BTreeSet<bool>,
    backends: Vec<Backend>,
}

/// The answers of others go past us, or to us.
fn translated(frontend: &&Frontend) -> bool {
    frontend.forward.elsewhere == ForwardKind::Nat
}

impl Wanted {
    fn of(desired: &Desired) -> Self {
        let services = || desired.services().values().map(Arc::as_ref);
        let frontends = || services().flat_map(|s| &s.frontends).filter(translated);
        let everybody = || frontends().filter(|f| f.sources.is_empty());
        let families = [false, true].into_iter().filter(|v6| everybody().any(|f| f.has_family(*v6)));
        let of = |s: &ServiceSpec| -> Vec<Backend> {
            let snat = s.frontends.iter().all(|f| f.forward.elsewhere == ForwardKind::Snat);
            let service = &s.name;
            let backends = s.backends.iter();
            backends
                .map(|(name, b)| Backend {
                    service: service.clone(),
                    name: name.clone(),
                    address: b.address,
                    snat,
                })
                .collect()
        };
        let backends = services().filter(|s| !s.is_direct()).flat_map(of).take(BACKENDS).collect();
        Self { families: families.collect(), backends }
    }

    async fn ways(self, netlink: &Handle) -> Result<Vec<Way>, DatapathError> {
        let mut ways = Vec::new();
        let names: BTreeMap<u32, String> =
            interfaces::list(netlink).await?.into_iter().map(|i| (i.index, i.name)).collect();
        for elsewhere in ELSEWHERE.into_iter().filter(|a| self.families.contains(&a.is_ipv6())) {
            if let Some(interface) = routes::interface(netlink, elsewhere).await.and_then(|i| names.get(&i)) {
                let to = Towards::Clients { v6: elsewhere.is_ipv6() };
                ways.push(Way { to, interface: interface.clone() });
            }
        }
        for Backend { service, name, address, snat } in self.backends {
            if let Some(interface) = routes::interface(netlink, address).await.and_then(|i| names.get(&i)) {
                let to = Towards::Backend { service, backend: name, snat, v6: address.is_ipv6() };
                ways.push(Way { to, interface: interface.clone() });
            }
        }
        Ok(ways)
    }
}

async fn setup(shared: &Shared, netlink: &Handle) -> Result<Setup, DatapathError> {
    // It asks the kernel: before anybody has to wait for the state.
    let not_ended = shared.led.then(diag::can_end).and_then(Result::err);
    let (mut setup, wanted) = {
        let state = shared.read();
        let name = |i: &InterfaceView| i.name.clone();
        let matched: BTreeSet<String> = state.interfaces.iter().map(name).collect();
        let arrival = state.interfaces.iter().filter(|i| on_arrival(i)).map(name).collect();
        let by_xdp =
            state.interfaces.iter().filter(|i| !on_arrival(i) && i.attach == "xdp").map(name).collect();
        let services = || state.desired.services().values().map(Arc::as_ref);
        let frontends = services().flat_map(|s| &s.frontends).filter(translated);
        let vips = frontends.flat_map(|f| f.named().chain(f.anywhere(&state.own)));
        // Nobody's packets have a loopback address.
        let vips = vips.filter(|vip| !vip.is_loopback()).collect();
        let at_loopback = |s: &&ServiceSpec| s.frontends.iter().any(|f| f.loopback().next().is_some());
        let not_led =
            services().filter(|_| !shared.led).filter(at_loopback).map(|s| s.name.clone()).collect();
        let setup =
            Setup { matched, arrival, by_xdp, vips: Some(vips), ways: Vec::new(), not_led, not_ended };
        (setup, Wanted::of(&state.desired))
    };
    setup.ways = wanted.ways(netlink).await?;
    Ok(setup)
}

//! Where programs are to be, and how backends are reached.

use std::{collections::BTreeMap, net::IpAddr, sync::PoisonError};

use lb_common::abi::{Interface, Source};

use super::{Owner, State};
use crate::{
    api::{error::ApiError, types::InterfaceView},
    datapath::{
        DatapathError, addresses, interfaces,
        routes::{self, Hop},
        snat,
    },
    model::{Desired, ForwardKind, ModelError, OwnAddresses, ServiceSpec},
    source::{Fast, InterfaceRule, Role, Runtime, Variant},
};

/// Are there services whose backends answer past the node?
pub(super) fn has_direct(desired: &Desired) -> bool {
    desired.services().values().any(ServiceSpec::is_direct)
}

/// Does anything of a service depend on whether these are addresses of the node's?
fn follows(spec: &ServiceSpec, changed: &OwnAddresses) -> bool {
    let guarded = spec.frontends.iter().any(|frontend| !frontend.sources.is_empty());
    guarded
        || spec.is_anywhere()
        || spec.named().any(|vip| changed.contains(&vip))
        || spec.backends.values().any(|backend| changed.contains(&backend.address))
}

impl Owner {
    /// Notes in the status what is in force and can't be reached as it should be. When the node starts its routes may still be missing.
    pub async fn note_ways(&self) {
        let desired = self.shared.read().desired.clone();
        let checked = self.check_ways(&desired).await;
        self.shared.write().note("ways", checked);
    }

    /// Can all backends be reached as their services want it?
    pub(super) async fn check_ways(&self, desired: &Desired) -> Result<(), ModelError> {
        for service in desired.services().values() {
            for backend in service.backends.values() {
                self.check_way(service, backend.address, backend.name()).await?;
            }
        }
        Ok(())
    }

    /// Can a backend be reached as its service wants it?
    ///
    /// # Errors
    /// It can't.
    pub async fn check_way(
        &self,
        service: &ServiceSpec,
        address: IpAddr,
        backend: String,
    ) -> Result<(), ModelError> {
        let of_family = service.frontends.iter().filter(|f| f.has_family(address.is_ipv6()));
        let kinds: Vec<ForwardKind> = of_family.flat_map(|f| f.forward.kinds()).collect();
        if !kinds.iter().any(|kind| kind.is_direct()) {
            return Ok(());
        }
        let l2 = kinds.contains(&ForwardKind::DsrL2);
        let service = service.name.clone();
        match routes::towards(&self.netlink, address).await {
            Hop::Own => Err(ModelError::DirectToSelf { service, backend }),
            Hop::Router(router) if l2 => Err(ModelError::NotOnSegment { service, backend, router }),
            // A route may come yet.
            _ => Ok(()),
        }
    }

    /// Adds a service that the command line declared, with what interfaces need for its sake.
    ///
    /// # Errors
    /// As [`Owner::change`].
    pub async fn add_service(&mut self, spec: &ServiceSpec, runtime: Runtime) -> Result<(), ApiError> {
        let direct = spec.is_direct() && !has_direct(&self.shared.read().desired);
        if direct {
            // Before the first packet that XDP leaves to TC.
            self.attach_for(true).await;
        }
        let before = self.sends_as_the_node(&self.shared.read());
        let changed = self.change(&spec.name, runtime);
        let after = self.sends_as_the_node(&self.shared.read());
        if direct || before != after {
            self.attach().await;
        }
        changed
    }

    /// Where a client's packets come from, as far as it matters to services: by the way that leads to it. A process
    /// of the node's is treated as a pod's.
    pub async fn source_of(&self, client: IpAddr) -> Source {
        if self.shared.read().own.contains(&client) {
            return Source::POD;
        }
        let index = routes::interface(&self.netlink, client).await;
        let state = self.shared.read();
        let interface = state.interfaces.iter().find(|i| Some(i.index) == index);
        match interface.and_then(|i| self.rule(&i.name)).map(InterfaceRule::role) {
            Some(Role::Pod) => Source::POD,
            _ => Source::ELSEWHERE,
        }
    }

    /// The rule for an interface.
    pub(super) fn rule(&self, name: &str) -> Option<&InterfaceRule> {
        self.config.interfaces.iter().find(|rule| rule.matcher.is_match(name))
    }

    /// Looks which interfaces and addresses the node has now, and does what follows.
    pub async fn look(&mut self) {
        if let Err(e) = self.look_at_addresses().await {
            tracing::warn!("what follows the node's addresses stays as it is: {e}");
        }
        self.attach().await;
    }

    /// Services at the node's addresses, backends that are the node, and addresses for source NAT are what they are
    /// now.
    ///
    /// # Errors
    /// Netlink refuses.
    pub async fn look_at_addresses(&mut self) -> Result<(), DatapathError> {
        let found = addresses::list(&self.netlink).await?;
        self.follow_sources(&found).await?;
        let own: OwnAddresses = found.into_iter().map(|(_, address)| address).collect();
        let concerned = {
            let mut state = self.shared.write();
            let due = state.own != own || state.problems.contains_key("addresses");
            let changed: OwnAddresses = state.own.symmetric_difference(&own).copied().collect();
            state.own = own;
            let any = state.desired.services().values().any(|spec| follows(spec, &changed));
            if !any {
                state.problems.remove("addresses");
            }
            due && any
        };
        if concerned {
            let done = self
                .reconcile_all()
                .map_err(|e| format!("the node's addresses have changed, and services don't follow: {e}"))
                .inspect_err(|problem| tracing::error!("{problem}"));
            self.shared.write().note("addresses", done);
        }
        Ok(())
    }

    /// Attaches where the configuration says and detaches elsewhere. What fails is in the status, and is tried again when
    /// interfaces change and every few seconds.
    pub async fn attach(&mut self) {
        self.hook_sockets();
        if self.shared.read().problems.contains_key("ways") {
            self.note_ways().await;
        }
        let direct = has_direct(&self.shared.read().desired);
        self.attach_for(direct).await;
        let refused = self.shared.object.lock().unwrap_or_else(PoisonError::into_inner).refusals().clone();
        self.shared.write().refused = refused;
    }

    /// Programs that the kernel refused are loaded once more when they are wanted.
    pub(super) fn retry_refused(&self) {
        let mut object = self.shared.object.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = object.retry_refused() {
            tracing::error!("programs that were refused: {e}");
        }
    }

    /// The same. `direct`: there are services whose backends answer past the node, or will be at once.
    pub(super) async fn attach_for(&mut self, direct: bool) {
        match interfaces::list(&self.netlink).await {
            Ok(found) => self.attach_to(&found, direct),
            Err(e) => {
                self.shared.write().problems.insert("interfaces", e.to_string());
            }
        }
    }

    /// The node's own processes.
    fn hook_sockets(&mut self) {
        let result = {
            let mut object = self.shared.object.lock().unwrap_or_else(PoisonError::into_inner);
            self.hooks.keep(&mut object, &self.shared.sockets, &self.config.sockets)
        };
        self.shared.write().note("sockets", result);
    }

    /// Do forwarded IPv4 packets have addresses of the node's as their source: requests by source NAT, or answers of services that are
    /// reached at such addresses?
    fn sends_as_the_node(&self, state: &State) -> bool {
        let sources = state.sources.iter().any(|sources| sources.of_family(false).next().is_some());
        let as_it = |s: &ServiceSpec| s.has_family(false) && (sources || s.is_on_node(&state.own));
        state.desired.services().values().any(as_it)
    }

    fn attach_to(&mut self, found: &[interfaces::Interface], direct: bool) {
        let wanted: Vec<(&interfaces::Interface, &InterfaceRule)> = found
            .iter()
            .filter_map(|i| {
                let rule = self.config.interfaces.iter().find(|r| r.matcher.is_match(&i.name))?;
                Some((i, rule))
            })
            .collect();
        let mut views = Vec::new();
        let mut kept = Vec::new();
        let mut roles = BTreeMap::new();
        let (before, own_sources) = {
            let state = self.shared.read();
            (state.interfaces.clone(), self.sends_as_the_node(&state))
        };
        let mut object = self.shared.object.lock().unwrap_or_else(PoisonError::into_inner);
        for (interface, rule) in wanted {
            let fast = rule.fast;
            kept.push(interface.index);
            let mut refused = false;
            let result = match interface.unfit {
                Some(why) => Err(why.to_string()),
                None => self
                    .attachments
                    .attach(&mut object, interface, rule.attach, rule.variant(), direct)
                    .map_err(|e| {
                        refused = matches!(e, DatapathError::Refused { .. });
                        e.to_string()
                    }),
            };
            let peer = fast == Fast::Peer && interface.leads_out;
            let pod = rule.role() == Role::Pod;
            roles.insert(interface.index, Interface::new(peer, pod));
            let view = InterfaceView {
                name: interface.name.clone(),
                index: interface.index,
                attach: rule.attach.name().into(),
                fast: fast.is_on(),
                reply_on_arrival: rule.variant() == Variant::Ingress,
                peer,
                // After a failure, what was there before is still there.
                mode: self.attachments.mode(interface.index).map(|m| m.name().into()),
                error: result.err(),
            };
            if !before.contains(&view) {
                match (&view.error, &view.mode) {
                    // Why was said when it was.
                    (Some(_), _) if refused => {
                        tracing::warn!(
                            interface = view.name,
                            "not attached: a program that it needs was refused"
                        );
                    }
                    (Some(e), _) => tracing::warn!(interface = view.name, "not attached as configured: {e}"),
                    (None, mode) => tracing::info!(interface = view.name, mode, "attached"),
                }
            }
            // What is translated here is forwarded by the stack.
            if own_sources && let Err(e) = snat::accept_local(&interface.name) {
                tracing::warn!(
                    interface = interface.name,
                    "packets in the name of the node's addresses may not get through: {e}"
                );
            }
            views.push(view);
        }
        drop(object);
        // A rule that names an interface, rather than a kind of them, wants it to be there.
        for rule in &self.config.interfaces {
            let literal = !rule.pattern.contains(['*', '?', '[', '{']);
            if literal && !found.iter().any(|i| i.name == rule.pattern) {
                views.push(InterfaceView {
                    name: rule.pattern.clone(),
                    index: 0,
                    attach: rule.attach.name().into(),
                    fast: rule.fast.is_on(),
                    reply_on_arrival: rule.variant() == Variant::Ingress,
                    peer: false,
                    mode: None,
                    error: Some("there is no such interface; it will be attached when it appears".into()),
                });
            }
        }
        if let Err(e) = self.roles.set(&roles) {
            tracing::warn!("what interfaces are: {e}");
        }
        let attached = found.iter().filter(|i| kept.contains(&i.index)).count();
        let replaced = views.iter().filter(|view| view.error.is_none()).count() == attached;
        match self.attachments.keep_only(&kept) {
            // What an earlier agent's programs go on with is needed for as long as one of them is attached.
            Ok(()) if replaced => {
                let object = self.shared.object.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(e) = object.forget_earlier() {
                    tracing::warn!("what earlier programs went on with: {e}");
                }
            }
            Ok(()) => {}
            Err(e) => tracing::warn!("detaching: {e}"),
        }
        let mut state = self.shared.write();
        state.interfaces = views;
        state.problems.remove("interfaces");
    }
}

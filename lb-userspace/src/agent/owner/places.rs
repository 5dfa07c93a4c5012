//! Where programs are to be, and how backends are reached.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::abi::Interface;

use super::Owner;
use crate::{
    agent::{
        seen::{Hops, Seen},
        shared::State,
    },
    api::{error::ApiError, types::InterfaceView},
    datapath::{DatapathError, interfaces, snat},
    model::{Desired, OwnAddresses, ServiceSpec, SnatSpec},
    reconcile::{Input, Known},
    source::{Fast, InterfaceRule, Role, Runtime, Variant},
};

/// Are there services whose backends answer past the node?
pub(super) fn has_direct(desired: &Desired) -> bool {
    desired.services().values().any(|spec| spec.is_direct())
}

/// Does anything of a service depend on whether these are addresses of the node's?
fn follows(spec: &ServiceSpec, changed: &OwnAddresses) -> bool {
    let guarded = spec.frontends.iter().any(|frontend| !frontend.is_open());
    guarded
        || spec.is_anywhere()
        || spec.named().any(|vip| changed.contains(&vip))
        || spec.backends.values().any(|backend| changed.contains(&backend.address))
}

impl Owner {
    /// Notes in the status what is in force and can't be reached as it should be. When the node starts its routes may still be missing.
    pub fn note_ways(&self, hops: &Hops) {
        let mut state = self.shared.write();
        let checked = state.desired.services().values().try_for_each(|service| hops.check(service));
        state.note("ways", checked);
    }

    /// Adds or changes a service that the command line declared, with what interfaces need for its sake.
    ///
    /// # Errors
    /// As [`Owner::change`].
    pub fn put_service(&mut self, spec: &ServiceSpec, runtime: Runtime, seen: &Seen) -> Result<(), ApiError> {
        let had_direct = has_direct(&self.shared.read().desired);
        if spec.is_direct() && !had_direct {
            // Before the first packet that XDP leaves to TC.
            self.attach_for(seen, true);
        }
        let before = self.sends_as_the_node(&self.shared.read());
        let changed = self.change(&spec.name, runtime);
        let after = self.sends_as_the_node(&self.shared.read());
        let direct = has_direct(&self.shared.read().desired);
        // Refused: what was attached for it goes again.
        if spec.is_direct() != had_direct || direct != had_direct || before != after {
            self.attach(seen);
        }
        changed
    }

    /// Does what follows from which interfaces and addresses the node has now.
    pub fn look(&mut self, seen: &Seen) {
        if let Err(e) = &seen.addresses {
            tracing::warn!("what follows the node's addresses stays as it is: {e}");
        } else {
            self.follow_addresses(seen);
        }
        self.attach(seen);
    }

    /// Services at the node's addresses, backends that are the node, and addresses for source NAT are what they are now.
    fn follow_addresses(&mut self, seen: &Seen) {
        let (own, sources) = (seen.own(), self.sources_due(seen));
        let known = self.shared.read().known().clone();
        let again = self.shared.read().problems.contains_key("addresses");
        if !again && *known.own == own && known.sources.as_ref() == Some(&sources) {
            return;
        }
        let changed: OwnAddresses = known.own.symmetric_difference(&own).copied().collect();
        let concerned = known.desired.services().values().any(|spec| follows(spec, &changed));
        if known.sources.as_ref() != Some(&sources) {
            let SnatSpec { addresses, ports } = &sources;
            tracing::info!(?addresses, ?ports, "addresses for source NAT");
        } else if !again && !concerned {
            return self.shared.write().commit(Known { own: Arc::new(own), ..known });
        }
        let all = self.declared();
        let done = self
            .enter(Input::Declared { all: &all, own: &own, sources: Some(&sources) }, |_, _| Ok(()))
            .map_err(|e| format!("the node's addresses have changed, and services don't follow: {e}"))
            .inspect_err(|problem| tracing::error!("{problem}"));
        self.shared.write().note("addresses", done);
    }

    /// Addresses for source NAT, as the node is.
    pub(super) fn sources_due(&self, seen: &Seen) -> SnatSpec {
        seen.sources(&self.config)
    }

    /// Attaches where the configuration says and detaches elsewhere. What fails is in the status, and is tried again when
    /// interfaces change and every few seconds.
    pub fn attach(&mut self, seen: &Seen) {
        if self.is_off() {
            return;
        }
        let direct = has_direct(&self.shared.read().desired);
        self.attach_for(seen, direct);
        self.hook_sockets();
        let refused = self.shared.object().refusals().clone();
        self.shared.write().refused = refused;
    }

    /// Programs that the kernel refused are loaded once more when they are wanted.
    pub(super) fn retry_refused(&self) {
        let mut object = self.shared.object();
        if let Err(e) = object.retry_refused() {
            tracing::error!("programs that were refused: {e}");
        }
    }

    /// The same. `direct`: there are services whose backends answer past the node, or will be at once.
    pub(super) fn attach_for(&mut self, seen: &Seen, direct: bool) {
        match &seen.interfaces {
            // Nobody knows where programs are to be: those that are attached stay.
            _ if self.blind || self.is_off() => {}
            Ok(found) => self.attach_to(found, seen, direct),
            Err(e) => {
                self.shared.write().problems.insert("interfaces", e.to_string());
            }
        }
    }

    /// The node's own processes.
    fn hook_sockets(&mut self) {
        let result = {
            let mut object = self.shared.object();
            self.hooks.keep(&mut object, &self.shared.sockets, &self.config.sockets)
        };
        self.shared.write().note("sockets", result);
    }

    /// Do forwarded IPv4 packets have addresses of the node's as their source: requests by source NAT, or answers of services that are
    /// reached at such addresses?
    pub(super) fn sends_as_the_node(&self, state: &State) -> bool {
        let sources = state.sources.iter().any(|sources| sources.of_family(false).next().is_some());
        let as_it = |s: &Arc<ServiceSpec>| s.has_family(false) && (sources || s.is_on_node(&state.own));
        state.desired.services().values().any(as_it)
    }

    fn attach_to(&mut self, found: &[interfaces::Interface], seen: &Seen, direct: bool) {
        let wanted: Vec<(&interfaces::Interface, &InterfaceRule)> = seen.ruled(&self.config).collect();
        let uplink = wanted.iter().any(|(_, rule)| rule.matcher.wants_uplink());
        let mut views = Vec::new();
        let mut kept = Vec::new();
        let mut roles = BTreeMap::new();
        let (before, own_sources) = {
            let state = self.shared.read();
            (state.interfaces.clone(), self.sends_as_the_node(&state))
        };
        // Before an interface has a program that asks for them.
        if let Err(e) = self.macs.set(found.iter().filter_map(|interface| interface.mac).collect()) {
            tracing::warn!("which MAC addresses are the node's: {e}");
        }
        let mut object = self.shared.object();
        for (interface, rule) in wanted {
            let fast = rule.fast;
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
            // Pods end: what went meanwhile is nothing to be told.
            if result.is_err() && !interface.is_there() {
                continue;
            }
            kept.push(interface.index);
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
            if own_sources
                && let Err(e) = snat::accept_local(&interface.name)
                && interface.is_there()
            {
                tracing::warn!(
                    interface = interface.name,
                    "packets in the name of the node's addresses may not get through: {e}"
                );
            }
            views.push(view);
        }
        drop(object);
        // Those that have to be there.
        for rule in &self.config.interfaces {
            let missing = match rule.literal() {
                Some(name) => (!found.iter().any(|i| i.name == name))
                    .then_some("there is no such interface; it will be attached when it appears"),
                None => (rule.matcher.wants_uplink() && !uplink).then_some(
                    "no default route leads out of this node by an interface with Ethernet frames; name the uplink in an \
                     [[interface]]",
                ),
            };
            if let Some(missing) = missing {
                views.push(InterfaceView {
                    name: rule.pattern.clone(),
                    index: 0,
                    attach: rule.attach.name().into(),
                    fast: rule.fast.is_on(),
                    reply_on_arrival: rule.variant() == Variant::Ingress,
                    peer: false,
                    mode: None,
                    error: Some(missing.into()),
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
                let object = self.shared.object();
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

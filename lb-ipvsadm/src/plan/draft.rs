//! The table as it will be, while changes are gone through.

use std::collections::BTreeMap;

use flowpin_import::ipvs::Forward;

use super::{NewServer, NewService, Place, Plan, Refusal, Settings, Step, Table, Target, Timeouts};
use crate::{
    Protocol,
    change::{option, socket},
    table::{Counts, Frontend, Server, Service, frontend_at},
};

/// See the module.
pub struct Draft {
    /// The line that is being looked at.
    pub line: Option<usize>,
    table: Table,
    /// Those that still hold.
    steps: Vec<(Option<usize>, Option<Step>)>,
    /// Services that a step adds, and which step it is: what is said of them later is part of it.
    added: BTreeMap<String, usize>,
    notes: Vec<String>,
    kept: Vec<String>,
}

impl Draft {
    pub fn new(table: &Table) -> Self {
        let (steps, added) = (Vec::new(), BTreeMap::new());
        Self { line: None, table: table.clone(), steps, added, notes: Vec::new(), kept: Vec::new() }
    }

    pub fn finish(self) -> Plan {
        let steps = self.steps.into_iter().filter_map(|(line, step)| Some((line, step?))).collect();
        Plan { steps, notes: self.notes, kept: self.kept }
    }

    fn step(&mut self, step: Step) {
        self.steps.push((self.line, Some(step)));
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        let line = self.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        self.notes.push(format!("{line}{text}"));
    }

    /// What is at a place: which service, and its frontend.
    fn find(&self, at: &Place) -> Result<(usize, Frontend), Refusal> {
        let services = &self.table.services;
        let found = |(i, service)| frontend_at(service, at).map(|frontend| (i, *frontend));
        let found = services.iter().enumerate().find_map(found);
        found.ok_or_else(|| {
            let in_range = services.iter().find(|service| service.frontends.iter().any(|f| f.overlaps(at)));
            Refusal::failed(match in_range {
                Some(Service { name, .. }) => format!(
                    "No such service: {at} is one of several ports of service \"{name}\"; use \"flowpin service\" and \
                     \"flowpin backend\" for it"
                ),
                None => format!(
                    "No such service: {at}; add it with -A, or see what there is with \"flowpin ipvsadm -L\""
                ),
            })
        })
    }

    /// The step that adds a service, if one does.
    fn new_service(&mut self, name: &str) -> Option<&mut NewService> {
        match self.steps.get_mut(*self.added.get(name)?) {
            Some((_, Some(Step::AddService(new)))) => Some(new),
            _ => None,
        }
    }

    pub fn add_service(&mut self, at: &Place, settings: &Settings) -> Result<(), Refusal> {
        let name = at.name();
        for service in &self.table.services {
            let there = service.frontends.iter().any(|frontend| frontend.overlaps(at));
            if there || service.name == name {
                return Err(Refusal::failed(format!(
                    "Service already exists: {at} is service \"{}\"; change it with -E",
                    service.name
                )));
            }
        }
        let Settings { algorithm, affinity, notes } = settings.clone();
        let ((first, last), Place { protocol, address, .. }) = (at.ports(), *at);
        // Until a server says how packets go.
        let forward = Forward::Nat;
        self.table.services.push(Service {
            name: name.clone(),
            elsewhere: None,
            frontends: vec![Frontend { protocol, address, first, last, to: None, forward }],
            algorithm,
            affinity,
            unsaid: Vec::new(),
            servers: Vec::new(),
        });
        self.added.insert(name.clone(), self.steps.len());
        let new = NewService { name, at: *at, algorithm, affinity, forward: None, servers: Vec::new() };
        self.step(Step::AddService(new));
        notes.iter().for_each(|note| self.note(note));
        Ok(())
    }

    pub fn edit_service(&mut self, at: &Place, settings: &Settings) -> Result<(), Refusal> {
        let (i, _) = self.find(at)?;
        let service = &mut self.table.services[i];
        own(&format!("service \"{}\"", service.name), service.elsewhere.as_deref())?;
        let Settings { algorithm, affinity, notes } = settings.clone();
        (service.algorithm, service.affinity) = (algorithm, affinity);
        let (name, frontends) = (service.name.clone(), service.frontends.len());
        match self.new_service(&name) {
            Some(new) => (new.algorithm, new.affinity) = (algorithm, affinity),
            None => self.step(Step::Choose { service: name.clone(), algorithm, affinity }),
        }
        notes.iter().for_each(|note| self.note(note));
        if frontends > 1 {
            self.note(format_args!("all {frontends} frontends of service \"{name}\" change alike."));
        }
        Ok(())
    }

    pub fn remove_service(&mut self, at: &Place) -> Result<(), Refusal> {
        let (i, _) = self.find(at)?;
        let Service { name, frontends, elsewhere, .. } = &self.table.services[i];
        own(&format!("service \"{name}\""), elsewhere.as_deref())?;
        if frontends.len() > 1 {
            return Err(Refusal::failed(format!(
                "{at} is one of {} frontends of service \"{name}\", which would all go; use \"flowpin service remove \
                 {name}\", or \"flowpin service set\" for one of them",
                frontends.len()
            )));
        }
        self.drop_service(i);
        Ok(())
    }

    /// Takes a service out.
    fn drop_service(&mut self, i: usize) {
        let Service { name, .. } = self.table.services.remove(i);
        match self.added.remove(&name).and_then(|at| self.steps.get_mut(at)) {
            Some((_, step)) => *step = None,
            None => self.step(Step::RemoveService { service: name }),
        }
    }

    pub fn add_server(
        &mut self,
        at: &Place,
        target: &Target,
        forward: Forward,
        weight: u16,
        limit: Option<u32>,
    ) -> Result<(), Refusal> {
        let (i, frontend) = self.find(at)?;
        let port = target.port_at(at, Some(forward))?;
        let name = port.map_or_else(|| target.address.to_string(), |port| socket(target.address, port));
        if target.address.is_ipv6() != at.address.is_ipv6() {
            return Err(Refusal::failed(format!(
                "server {name} is not of the IP version of service {at}; add it to a service that is of its own"
            )));
        }
        let service = &self.table.services[i];
        if let Some(k) = server_at(service, &frontend, target, port) {
            return Err(Refusal::failed(format!(
                "Destination already exists: {} of service \"{}\"; change it with -e",
                service.servers[k].name, service.name
            )));
        }
        self.go(i, &frontend, at, forward, None)?;
        let service = &mut self.table.services[i];
        service.servers.push(Server {
            name: name.clone(),
            elsewhere: None,
            address: target.address,
            port,
            weight,
            draining: false,
            unhealthy: false,
            limit,
            active: 0,
            clients: 0,
            counts: Counts::default(),
        });
        let service = service.name.clone();
        let server = NewServer { address: name, weight, limit };
        match self.new_service(&service) {
            Some(new) => new.servers.push(server),
            None => self.step(Step::AddServer { service, server }),
        }
        Ok(())
    }

    /// Has packets of a service go so. It is one way for all of its servers: nothing changes while others than `only` get
    /// theirs in another.
    fn go(
        &mut self,
        i: usize,
        frontend: &Frontend,
        at: &Place,
        forward: Forward,
        only: Option<&str>,
    ) -> Result<(), Refusal> {
        let service = &mut self.table.services[i];
        let name = service.name.clone();
        let others = service.servers.iter().any(|server| Some(server.name.as_str()) != only);
        // Source NAT is masquerading, too.
        let fits = option(forward) == option(frontend.forward);
        if !fits && (others || service.frontends.len() > 1) {
            return Err(Refusal::failed(format!(
                "{} is forward = \"{}\", and service \"{name}\" ({at}) has \"{}\" for all of its servers; give {}, or change \
                 it for all with \"flowpin service set {name} --forward {}\"",
                option(forward),
                forward.name(),
                frontend.forward.name(),
                option(frontend.forward),
                forward.name()
            )));
        }
        if !fits {
            own(&format!("service \"{name}\""), service.elsewhere.as_deref())?;
            service.frontends.iter_mut().for_each(|frontend| frontend.forward = forward);
        }
        match self.new_service(&name) {
            Some(new) => new.forward = Some(forward),
            None if fits => {}
            None => self.step(Step::Forward { service: name, forward, before: frontend.forward }),
        }
        Ok(())
    }

    /// Which server of a place a command names.
    fn find_server(&self, at: &Place, target: &Target) -> Result<(usize, usize, Frontend), Refusal> {
        let (i, frontend) = self.find(at)?;
        let port = target.port_at(at, None)?;
        let found = server_at(&self.table.services[i], &frontend, target, port);
        let k = found.ok_or_else(|| {
            Refusal::failed(format!(
                "No such destination: {} at service {at}; add it with -a, or see what there is with \"flowpin ipvsadm -L\"",
                socket(target.address, port.unwrap_or(0))
            ))
        })?;
        Ok((i, k, frontend))
    }

    pub fn edit_server(
        &mut self,
        at: &Place,
        target: &Target,
        forward: Option<Forward>,
        weight: u16,
        limit: Option<u32>,
    ) -> Result<(), Refusal> {
        let (i, k, frontend) = self.find_server(at, target)?;
        let there = &self.table.services[i].servers[k];
        own(&format!("server {}", there.name), there.elsewhere.as_deref())?;
        let Server { name: server, draining, weight: old, limit: old_limit, .. } = there.clone();
        if let Some(forward) = forward {
            target.port_at(at, Some(forward))?;
            self.go(i, &frontend, at, forward, Some(&server))?;
        }
        let there = &mut self.table.services[i];
        let service = there.name.clone();
        (there.servers[k].weight, there.servers[k].limit) = (weight, limit);
        let new = self.new_service(&service);
        match new.and_then(|new| new.servers.iter_mut().find(|new| new.address == server)) {
            Some(new) => (new.weight, new.limit) = (weight, limit),
            None => self.step(Step::EditServer {
                service: service.clone(),
                server: server.clone(),
                to: (weight, limit),
                before: (old, old_limit),
            }),
        }
        if draining && weight > 0 {
            self.note(format_args!(
                "{server} is draining, and gets nothing new until \"flowpin backend undrain {service} {server}\"."
            ));
        }
        Ok(())
    }

    pub fn remove_server(&mut self, at: &Place, target: &Target) -> Result<(), Refusal> {
        let (i, k, _) = self.find_server(at, target)?;
        let service = &mut self.table.services[i];
        own(&format!("server {}", service.servers[k].name), service.servers[k].elsewhere.as_deref())?;
        let (service, server) = (service.name.clone(), service.servers.remove(k).name);
        match self.new_service(&service) {
            Some(new) => new.servers.retain(|new| new.address != server),
            None => self.step(Step::RemoveServer { service, server }),
        }
        Ok(())
    }

    /// Takes out all that are the command line's.
    pub fn clear(&mut self) {
        let mut i = 0;
        while let Some(service) = self.table.services.get(i) {
            match &service.elsewhere {
                None => self.drop_service(i),
                Some(origin) => {
                    self.kept.push(format!("service \"{}\" stays: {}", service.name, declared(origin)));
                    i += 1;
                }
            }
        }
    }

    /// IPVS has one set of timeouts, Flowpin one for each service: those that the command line owns get them.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) {
        let mut steps = Vec::new();
        for Service { name, frontends, elsewhere, .. } in &self.table.services {
            if let Some(origin) = elsewhere {
                self.kept.push(format!("service \"{name}\" keeps its timeouts: {}", declared(origin)));
                continue;
            }
            let has = |protocol| frontends.iter().any(|frontend| frontend.protocol == protocol);
            let own = Timeouts {
                tcp: timeouts.tcp.filter(|_| has(Protocol::Tcp)),
                tcp_fin: timeouts.tcp_fin.filter(|_| has(Protocol::Tcp)),
                udp: timeouts.udp.filter(|_| has(Protocol::Udp)),
            };
            if own != Timeouts::default() {
                steps.push(Step::Timeouts { service: name.clone(), timeouts: own });
            }
        }
        steps.into_iter().for_each(|step| self.step(step));
        self.note("--set is for the services that are there now; those that are added later have Flowpin's timeouts.");
    }
}

/// Only what the command line added is changed by it.
fn own(what: &str, elsewhere: Option<&str>) -> Result<(), Refusal> {
    match elsewhere {
        None => Ok(()),
        Some(origin) => {
            Err(Refusal::failed(format!("{what} isn't the command line's: {}", declared(origin))))
        }
    }
}

/// Where something is changed that isn't the command line's.
fn declared(origin: &str) -> String {
    match origin {
        "file" => "the config file declares it; edit that, and send the agent SIGHUP".into(),
        origin => format!("{origin} declares it; change it there"),
    }
}

/// Which of a service's servers a command names.
fn server_at(service: &Service, frontend: &Frontend, target: &Target, port: Option<u16>) -> Option<usize> {
    let is_it = |s: &Server| s.address == target.address && frontend.port_of(s) == port;
    service.servers.iter().position(is_it)
}

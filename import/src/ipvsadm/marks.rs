//! Marks of iptables: `-A PREROUTING -d 10.0.0.1/32 -p tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff` says
//! where a service by mark is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Reader, service::Key};
use crate::{
    account::Id,
    directive::Directive,
    model::{Frontend, Ports, Protocol},
};

/// What a rule marks.
pub struct Mark {
    mark: u32,
    address: IpAddr,
    ports: Vec<Ports>,
    at: Id,
}

/// Is it a rule of iptables, as iptables-save prints it, or what comes with one?
pub fn is_rule(directive: &Directive) -> bool {
    let name = directive.name();
    let chain = directive.arg().starts_with(|c: char| c.is_ascii_alphabetic());
    name.starts_with(['*', ':']) || name == "COMMIT" || matches!(name, "-A" | "-I") && chain
}

fn mark_of(text: &str) -> Option<u32> {
    let text = text.split('/').next()?;
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

/// A rule that marks, and nothing but packets to an address and its ports.
fn read(directive: &Directive, at: Id) -> Option<Mark> {
    let (mut mark, mut address, mut protocol, mut ports) = (None, None, None, None);
    let mut words = directive.words.iter().map(String::as_str).skip_while(|word| !word.starts_with('-'));
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "-A" | "-I" | "-t" => {}
            "-m" if matches!(value, "tcp" | "udp" | "multiport") => {}
            "-j" if value == "MARK" => {}
            "-d" => {
                let net: IpNet =
                    value.parse().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from))?;
                address = (net.prefix_len() == net.max_prefix_len()).then(|| net.addr());
                address?;
            }
            "-p" if value == "tcp" => protocol = Some(Protocol::Tcp),
            "-p" if value == "udp" => protocol = Some(Protocol::Udp),
            "--dport" | "--dports" => ports = Some(value),
            "--set-mark" | "--set-xmark" => mark = Some(mark_of(value)?),
            _ => return None,
        }
    }
    let protocol = protocol?;
    let range = |text: &str| crate::values::ports(&text.replace(':', "-"), protocol).ok();
    let ports = match ports {
        Some(list) => list.split(',').map(range).collect::<Option<Vec<Ports>>>()?,
        None => vec![Ports { first: 1, last: u16::MAX, protocol }],
    };
    Some(Mark { mark: mark?, address: address?, ports, at })
}

impl Reader {
    /// A rule, or a line that comes with it.
    pub(super) fn mark(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        match read(directive, at) {
            Some(mark) => self.marks.push(mark),
            None => self.draft.note(
                at,
                "Of iptables only rules are read that mark what goes to an address and ports: this one \
                 stays where it is.",
            ),
        }
    }

    /// Services by mark get the addresses of the rules that set it.
    pub(super) fn place_marks(&mut self) {
        let mut used = vec![false; self.marks.len()];
        for (key, index) in &self.services {
            let Key::Mark(mark, _) = key else { continue };
            let service = &mut self.draft.services[*index];
            for (rule, used) in self.marks.iter().zip(&mut used).filter(|(rule, _)| rule.mark == *mark) {
                *used = true;
                let Mark { address, ports, at, .. } = rule;
                service.frontends.extend(ports.iter().map(|ports| Frontend {
                    address: *address,
                    ports: *ports,
                    at: *at,
                    access: None,
                }));
            }
            if service.frontends.is_empty() {
                service.turn_off(
                    service.at,
                    "Which packets have this mark is said by rules of the firewall: write their addresses \
                     and ports as vip and ports, and uncomment it.",
                );
            }
        }
        for (rule, used) in self.marks.iter().zip(used) {
            if !used {
                self.draft.notes.push(crate::account::Note::new(
                    rule.at,
                    "No service of this file is by this mark: it stays where it is.",
                ));
            }
        }
    }
}

//! A packet without ports: ICMP, a fragment, or something broken.

use lb_common::abi::Reason;

use super::{Family, go_on, parsed, refuse};
use crate::{
    account, foreign, fragment,
    icmp::{self, Meant},
    packet::{Hook, Packet, Step},
    parse::{ParseError, Parsed},
    service,
};

/// See the module.
#[inline(always)]
pub fn aside<V: Family, P: Packet>(mut packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if foreign::is_foreign(&packet, parsed.key.src) {
        if service::vip::<V>(parsed.key.dst).is_some() {
            account::reason(Reason::Foreign as u32);
        }
        return packet.pass();
    }
    let why = ParseError::of(parsed.because);
    let known = match why {
        ParseError::Icmp => {
            let comes_in = packet.hook() != Hook::OUT && packet.hook() != Hook::BESIDES;
            return match icmp::meet::<V, P>(&mut packet, parsed, comes_in) {
                Meant::Onward => packet.pass(),
                Meant::Answer => packet.send_back(),
                Meant::Withheld => refuse::<V, P>(packet, parsed, Reason::Unanswered as u32),
                Meant::Spoilt => refuse::<V, P>(packet, parsed, Reason::Internal as u32),
            };
        }
        ParseError::FirstFragment => fragment::is_ours::<V>(parsed),
        ParseError::Fragment => fragment::later::<V>(parsed),
        ParseError::Malformed | ParseError::Foreign => false,
    };
    if known {
        return go_on::<V, P>(packet, Step::Flow);
    }
    let seen_to = packet.hook() == Hook::OUT || packet.hook() == Hook::BESIDES;
    if !seen_to && is_ours::<V>(parsed, why) { packet.drop() } else { packet.pass() }
}

/// Is it addressed to a VIP, and so dropped? It is counted.
#[inline(always)]
fn is_ours<V: Family>(parsed: &Parsed<V::Addr>, why: ParseError) -> bool {
    let Some(vip) = service::vip::<V>(parsed.key.dst) else { return false };
    let reason = match why {
        ParseError::Malformed => Reason::Malformed,
        // At an address of the node's it may be of a datagram to the node itself, whose first fragment has passed.
        ParseError::Fragment if vip.is_owned() => Reason::Fragment,
        ParseError::Foreign | ParseError::FirstFragment if vip.is_owned() => Reason::NoService,
        _ => return false,
    };
    account::reason(reason as u32);
    true
}

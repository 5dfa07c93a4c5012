//! Which Service has an address and port, if several ask for it: the one whose cluster address it is, then the
//! older, then by name.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::record::Transport;

/// An address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The address; unspecified: all of the node's.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub transport: Transport,
}

/// Who goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Not its cluster address: anybody may write the others.
    foreign: bool,
    /// In seconds since the Unix epoch.
    created: u64,
    service: Arc<str>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    /// In order.
    at: HashMap<Spot, Vec<Rank>>,
    of: HashMap<Arc<str>, Vec<Spot>>,
}

impl Claims {
    /// Who has it.
    pub fn holder(&self, spot: &Spot) -> Option<&Arc<str>> {
        self.at.get(spot)?.first().map(|rank| &rank.service)
    }

    /// What a Service asks for from now on (`true`: it is its cluster address), created at that second since the
    /// Unix epoch. Returns the others that have something now that they hadn't, or the reverse.
    pub fn set(&mut self, service: &Arc<str>, spots: &[(Spot, bool)], created: u64) -> BTreeSet<Arc<str>> {
        let before = self.of.remove(service).unwrap_or_default();
        let asked = spots.iter().map(|(spot, _)| *spot);
        let concerned: BTreeSet<Spot> = before.iter().copied().chain(asked.clone()).collect();
        let holders: Vec<Option<Arc<str>>> =
            concerned.iter().map(|spot| self.holder(spot).cloned()).collect();
        for spot in &before {
            if let Some(ranks) = self.at.get_mut(spot) {
                ranks.retain(|rank| rank.service != *service);
                if ranks.is_empty() {
                    self.at.remove(spot);
                }
            }
        }
        for (spot, own) in spots {
            // Whoever isn't known to be old is new.
            let created = if created == 0 { u64::MAX } else { created };
            let rank = Rank { foreign: !own, created, service: service.clone() };
            let ranks = self.at.entry(*spot).or_default();
            match ranks.iter_mut().find(|known| known.service == *service) {
                Some(known) => *known = rank.min(known.clone()),
                None => ranks.push(rank),
            }
            ranks.sort_unstable();
        }
        if !spots.is_empty() {
            let spots: BTreeSet<Spot> = asked.collect();
            self.of.insert(service.clone(), spots.into_iter().collect());
        }
        let mut others = BTreeSet::new();
        for (spot, before) in concerned.iter().zip(holders) {
            let after = self.holder(spot);
            if before.as_ref() != after {
                others.extend(before);
                others.extend(after.cloned());
            }
        }
        others.remove(service);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(address: &str) -> Spot {
        Spot { address: address.parse().unwrap(), port: 80, transport: Transport::Tcp }
    }

    #[test]
    fn s11_the_older_goes_first() {
        let mut claims = Claims::default();
        let name = |text: &str| -> Arc<str> { text.into() };
        let names = |list: &[&str]| list.iter().map(|text| name(text)).collect::<BTreeSet<_>>();
        let (old, new, one, two) = (name("d/old"), name("d/new"), spot("192.0.2.1"), spot("192.0.2.2"));
        assert_eq!(claims.set(&new, &[(one, false), (two, false)], 20), names(&[]));
        assert_eq!(claims.set(&old, &[(one, false)], 10), names(&["d/new"]), "who loses it is told");
        assert_eq!((claims.holder(&one), claims.holder(&two)), (Some(&old), Some(&new)));
        assert_eq!(claims.set(&old, &[(one, false)], 10), names(&[]), "nothing has changed");
        // Of the same second, the name decides; without one, it is new.
        assert_eq!(claims.set(&new, &[(one, false)], 10), names(&["d/old"]));
        assert_eq!(claims.holder(&one), Some(&new));
        assert_eq!(claims.set(&new, &[(one, false)], 0), names(&["d/old"]));
        // A cluster address is nobody else's.
        assert_eq!(claims.set(&new, &[(one, true)], 20), names(&["d/old"]));
        assert_eq!(claims.set(&new, &[], 20), names(&["d/old"]), "who gets it is told");
        assert_eq!(claims.set(&old, &[], 10), names(&[]));
        assert!(claims.at.is_empty() && claims.of.is_empty());
    }
}

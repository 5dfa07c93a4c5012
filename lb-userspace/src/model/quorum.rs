//! A quorum: how much of a service has to be well for it to be up.
//!
//! A frontend leads to backends of its own IP version alone, so that each version's backends are counted by
//! themselves, as backups are.

use super::{BackendSpec, ModelError, ServiceSpec, frontend::family};

impl ServiceSpec {
    /// Do its backends of an IP version that are `healthy` and take new flows weigh as much as its quorum, backups
    /// aside? If not, they are given nothing new.
    pub fn meets_quorum(&self, v6: bool, healthy: impl Fn(&str) -> bool) -> bool {
        // Of one backend, whatever it weighs: there is nothing to count.
        self.quorum <= 1 || self.strength(v6, healthy) >= u64::from(self.quorum)
    }

    /// What can't be beside a quorum.
    pub(super) fn check_quorum(&self) -> Result<(), ModelError> {
        let panic = self.health.as_ref().map_or(0, |health| health.panic);
        if self.quorum > 1 && panic > 0 {
            return Err(ModelError::QuorumAndPanic {
                service: self.name.clone(),
                quorum: self.quorum,
                panic,
            });
        }
        Ok(())
    }

    /// What they weigh.
    fn strength(&self, v6: bool, healthy: impl Fn(&str) -> bool) -> u64 {
        let of_version = self.of_version(v6);
        of_version.filter(|(name, b)| b.takes_new() && healthy(name)).map(|(_, b)| u64::from(b.share())).sum()
    }

    fn of_version(&self, v6: bool) -> impl Iterator<Item = (&String, &BackendSpec)> {
        self.backends.iter().filter(move |(_, backend)| backend.address.is_ipv6() == v6)
    }

    /// What is to be said while its quorum isn't met by backends of an IP version that it has, and what becomes of new
    /// clients then. `None`: it is met, or there is none.
    pub fn short_of_quorum(&self, healthy: impl Fn(&str) -> bool) -> Option<String> {
        if self.quorum <= 1 {
            return None;
        }
        let said = |v6| {
            let some = self.of_version(v6).next().is_some();
            let short = some && !self.meets_quorum(v6, &healthy);
            let spared = self.of_version(v6).any(|(name, b)| b.backup && b.takes_new() && healthy(name));
            let instead = if spared { "its backups take new clients" } else { "new clients are refused" };
            let (family, strength) = (family(v6), self.strength(v6, &healthy));
            short.then(|| format!("healthy {family} backends weigh {strength} of it together, and {instead}"))
        };
        let said: Vec<String> = [false, true].into_iter().filter_map(said).collect();
        (!said.is_empty()).then(|| format!("its quorum of {} isn't met: {}", self.quorum, said.join("; ")))
    }

    /// That its quorum can't be met, whoever is healthy. `None`: it can, or hosts that have no address yet may bring
    /// what it takes.
    pub(super) fn quorum_out_of_reach(&self) -> Option<String> {
        if self.quorum <= 1 || self.unresolved().next().is_some() {
            return None;
        }
        let whole = |v6| self.of_version(v6).map(|(_, b)| u64::from(b.share())).sum::<u64>();
        let short = |v6: &bool| self.of_version(*v6).next().is_some() && whole(*v6) < u64::from(self.quorum);
        let v6 = [false, true].into_iter().find(short)?;
        Some(format!(
            "quorum {} can't be met: all {} backends that aren't backups weigh {} together",
            self.quorum,
            family(v6),
            whole(v6)
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Frontend, Origin, ServiceSpec, service::make_backend};

    /// Of these weights; the last one is a backup.
    fn service(quorum: u32, weights: &[i64]) -> ServiceSpec {
        let (addresses, ports) = (vec!["10.96.0.1".parse().unwrap()], vec!["80/tcp".parse().unwrap()]);
        let frontend = Frontend { addresses, ports, ..Frontend::default() };
        let mut service = ServiceSpec::new("s", vec![frontend], Origin::Cli);
        service.quorum = quorum;
        for (i, weight) in weights.iter().enumerate() {
            let address = format!("10.0.0.{i}:80");
            let mut backend = make_backend("s", &address, Some(*weight), None, false, Origin::Cli).unwrap();
            backend.backup = i + 1 == weights.len();
            service.add(backend).unwrap();
        }
        service
    }

    #[test]
    fn weights_of_those_that_are_well_count_and_backups_don_t() {
        let all = |_: &str| true;
        let one_is_ill = |name: &str| name != "10.0.0.0:80";
        assert!(service(3, &[2, 1, 9]).meets_quorum(false, all));
        assert!(!service(3, &[2, 1, 9]).meets_quorum(false, one_is_ill));
        assert!(service(1, &[2, 0, 9]).meets_quorum(false, |_| false), "today's behaviour");
        assert!(!service(2, &[1, 0, 9]).meets_quorum(false, all), "weight 0 is none");
        let said = service(3, &[2, 1, 9]).short_of_quorum(one_is_ill).expect("it isn't met");
        let words = "its quorum of 3 isn't met: healthy IPv4 backends weigh 1 of it together, and its backups take new clients";
        assert_eq!(said, words);
        let refused = service(3, &[2, 1, 9]).short_of_quorum(|_| false).expect("it isn't met");
        assert!(refused.ends_with("weigh 0 of it together, and new clients are refused"), "{refused}");
        assert_eq!(service(3, &[2, 1, 9]).short_of_quorum(all), None);
        assert_eq!(service(3, &[]).short_of_quorum(all), None, "there is nobody to count");
    }

    #[test]
    fn one_that_can_t_be_met_is_warned_of() {
        let warnings = service(4, &[2, 1, 9]).warnings();
        assert_eq!(
            warnings,
            ["quorum 4 can't be met: all IPv4 backends that aren't backups weigh 3 together"]
        );
        assert_eq!(service(3, &[2, 1, 9]).warnings(), Vec::<String>::new());
        assert_eq!(service(4, &[]).warnings(), Vec::<String>::new());
    }
}

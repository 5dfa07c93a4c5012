use super::*;
use crate::source::{config::parse, merge};

fn desired(services: &str) -> Desired {
    merge::alone(&parse(services, "f").expect("a config")).0
}

#[test]
fn hosts_are_followed_for_as_long_as_a_service_has_them() {
    let service = |name: &str, vip: &str, host: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\"80/tcp\"]\n[[service.backend]]\naddress = \"{host}:80\"\n"
        )
    };
    let mut hosts = HashMap::new();
    let two = service("a", "10.96.0.1", "one") + &service("b", "10.96.0.2", "two");
    follow(&desired(&two), &mut hosts);
    let mut names: Vec<&str> = hosts.keys().map(AsRef::as_ref).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
    // Not due yet, until somebody wants another IP version of it.
    let later = Instant::now() + Duration::from_secs(60);
    hosts.values_mut().for_each(|followed| (followed.due, followed.failures) = (Some(later), 3));
    follow(&desired(&two), &mut hosts);
    assert!(hosts.values().all(|followed| followed.due == Some(later)));
    follow(&desired(&(service("a", "10.96.0.1", "one") + &service("c", "fd00::1", "one"))), &mut hosts);
    let one = &hosts["one"];
    assert_eq!((one.wanted, one.failures, hosts.len()), ([true, true], 3, 1));
    assert!(one.due.is_some_and(|due| due <= Instant::now()));
}

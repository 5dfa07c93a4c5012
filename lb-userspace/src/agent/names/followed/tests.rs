use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::source::{config::parse, merge};

fn desired(services: &str) -> Desired {
    merge::alone(&parse(services, "f").expect("a config")).0
}

fn service(name: &str, vip: &str, hosts: &[String]) -> String {
    let mut text = format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\"80/tcp\"]\n");
    hosts.iter().for_each(|host| {
        text.push_str(&format!("[[service.backend]]\naddress = \"{host}:80\"\n"));
    });
    text
}

fn names(look_ups: &[LookUp]) -> BTreeSet<&str> {
    look_ups.iter().map(|look_up| &*look_up.host).collect()
}

fn answered(seconds: u64) -> Told {
    Told { failed: false, again: Duration::from_secs(seconds) }
}

fn failed(seconds: u64) -> Told {
    Told { failed: true, again: Duration::from_secs(seconds) }
}

#[test]
fn hosts_are_followed_for_as_long_as_a_service_has_them() {
    let one = |name: &str, vip: &str, host: &str| service(name, vip, &[host.into()]);
    let (now, minute) = (Instant::now(), Duration::from_secs(60));
    let mut hosts = Hosts::default();
    let two = one("a", "10.96.0.1", "one") + &one("b", "10.96.0.2", "two");
    hosts.follow(&desired(&two), |_| false, now);
    let first = hosts.due(now);
    assert_eq!(names(&first), ["one", "two"].into());
    first.iter().for_each(|look_up| hosts.done(look_up, &failed(60), now));
    // Not due yet, until somebody wants another IP version of it.
    hosts.follow(&desired(&two), |_| false, now);
    assert_eq!(hosts.due(now + minute - Duration::from_secs(1)), []);
    let both = one("a", "10.96.0.1", "one") + &one("c", "fd00::1", "one");
    hosts.follow(&desired(&both), |_| false, now);
    assert_eq!(hosts.failures("one"), 1);
    assert!(!hosts.has("two"));
    let more = hosts.due(now);
    assert_eq!(
        more.iter().map(|look_up| (&*look_up.host, look_up.wanted)).collect::<Vec<_>>(),
        [("one", [true, true])]
    );
    // Or wanted it while it was looked up.
    hosts.follow(&desired(&one("a", "10.96.0.1", "one")), |_| false, now);
    hosts.done(&more[0], &answered(60), now);
    assert_eq!(hosts.due(now)[0].wanted, [true, false]);
}

#[test]
fn hosts_that_don_t_answer_keep_nobody_waiting_who_does() {
    let all = |name: &str, count: u32| -> Vec<String> { (0..count).map(|i| format!("{name}{i}")).collect() };
    let config = service("a", "10.96.0.1", &all("dead", 320)) + &service("b", "10.96.0.2", &all("well", 40));
    let mut now = Instant::now();
    let mut hosts = Hosts::default();
    // An agent that begins anew knows addresses of those that answer.
    hosts.follow(&desired(&config), |host| host.starts_with("well"), now);
    let second = Duration::from_secs(1);
    let (mut under_way, mut asked): (Vec<(Instant, LookUp)>, Vec<Instant>) = Default::default();
    let mut pauses = [now; 320].to_vec();
    let mut longest = Duration::ZERO;
    for _ in 0..1_200 {
        for look_up in hosts.due(now) {
            match look_up.host.strip_prefix("dead") {
                None => {
                    if &*look_up.host == "well0" {
                        asked.push(now);
                    }
                    hosts.done(&look_up, &answered(10), now);
                }
                Some(i) => {
                    let last = &mut pauses[i.parse::<usize>().unwrap()];
                    longest = longest.max(now - *last);
                    *last = now;
                    under_way.push((now + 15 * second, look_up));
                }
            }
        }
        assert!(under_way.len() <= AT_ONCE[1]);
        now += second;
        let over: Vec<_> = under_way.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, look_up) in over {
            let pause = (5u64 << hosts.failures(&look_up.host).min(6)).min(300);
            hosts.done(&look_up, &failed(pause), now);
        }
    }
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == 10 * second), "each at its time");
    assert_eq!(asked.len(), 120);
    assert!(longest < 450 * second, "those that fail are asked again: {longest:?}");
}

#[test]
fn who_answers_no_more_makes_room_and_comes_back() {
    let now = Instant::now();
    let later = now + Duration::from_secs(100);
    let mut hosts = Hosts::default();
    hosts.follow(&desired(&service("a", "10.96.0.1", &["one".into()])), |_| true, now);
    let [one] = &hosts.due(now)[..] else { panic!("it is due") };
    assert!(one.answered);
    hosts.done(one, &failed(60), now);
    assert_eq!(hosts.due(now + Duration::from_secs(59)), []);
    let [one] = &hosts.due(later)[..] else { panic!("it is due, a quarter later at most") };
    assert!(!one.answered);
    hosts.done(one, &answered(5), later);
    assert_eq!((hosts.failures("one"), hosts.under_way), (0, [0, 0]));
    assert!(hosts.due(later + Duration::from_secs(5))[0].answered);
}
